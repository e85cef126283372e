//! Flags of every verb that asks a model about texts.

use centroid::{Mode, Options, Truncation};
use clap::Args;

use super::{note, values};

#[derive(Args)]
pub struct ModelArgs {
    /// How linear layers treat their input: rounded to int8, or as it is
    #[arg(long, value_parser = values::mode(), default_value = "int8")]
    pub mode: Mode,
    /// Threads to use [default: as many as the process may run on]
    #[arg(long, value_name = "N", value_parser = values::threads)]
    threads: Option<usize>,
    /// The most tokens of a text, special tokens included [default: the model's limit]
    #[arg(long, value_name = "N", value_parser = values::positive)]
    max_length: Option<usize>,
    /// Cut longer texts; without this they are an error
    #[arg(long)]
    truncate: bool,
}

impl ModelArgs {
    /// A flag that was given and means nothing for a model of images.
    pub fn of_texts(&self) -> Option<&'static str> {
        match (self.max_length, self.truncate) {
            (Some(_), _) => Some("--max-length"),
            (None, true) => Some("--truncate"),
            (None, false) => None,
        }
    }

    pub fn options(&self) -> Options {
        let mut options = Options::new()
            .mode(self.mode)
            .threads(self.threads.unwrap_or(0));
        if let Some(tokens) = self.max_length {
            options = options.max_length(tokens);
        }
        if self.truncate {
            options = options.truncation(Truncation::Truncate);
        }
        options
    }
}

/// Says so if texts were cut.
pub fn note_cut(texts: usize, limit: usize) {
    if texts > 0 {
        let were = if texts == 1 { "text was" } else { "texts were" };
        note(format_args!("note: {texts} {were} cut to {limit} tokens"));
    }
}
