//! Rows as Markdown, CSV or JSON.

use super::super::Failure;
use super::super::output::{Out, count, one_line, size};
use super::Row;

pub enum Format {
    Markdown,
    Csv,
    Json,
}

/// Prints rows as they come; JSON, which is one array, at the end.
pub struct Table {
    format: Format,
    rows: Vec<Row>,
}

const WIDTHS: [usize; 17] = [16, 9, 9, 8, 5, 7, 5, 4, 8, 8, 8, 8, 18, 9, 9, 8, 9];
const HEADER: [&str; 17] = [
    "model",
    "size",
    "params",
    "kernel",
    "mode",
    "threads",
    "batch",
    "seq",
    "load ms",
    "min ms",
    "p50 ms",
    "p99 ms",
    "tokens/s",
    "peak RSS",
    "peak GMAC",
    "linear %",
    "forward %",
];

impl Table {
    pub fn new(format: Format) -> Self {
        Self {
            format,
            rows: Vec::new(),
        }
    }

    pub fn row(&mut self, out: &mut Out, row: Row) -> Result<(), Failure> {
        let first = self.rows.is_empty();
        match self.format {
            Format::Markdown => {
                let cells = cells(&row);
                if first {
                    let head = HEADER[..cells.len()].iter().map(|&name| name.to_owned());
                    markdown(out, head)?;
                    let text = |column: usize| column < 1 || column == 3 || column == 4;
                    let rule = (0..cells.len()).map(|i| {
                        let dashes = "-".repeat(WIDTHS[i] - 1);
                        match text(i) {
                            true => format!("{dashes}-"),
                            false => format!("{dashes}:"),
                        }
                    });
                    markdown(out, rule)?;
                }
                markdown(out, cells.into_iter())?;
            }
            Format::Csv => {
                if first {
                    let more = match row.roofline {
                        Some(_) => ",peak_mac_per_s,linear_mac_per_s,forward_mac_per_s",
                        None => "",
                    };
                    out.line(format_args!(
                        "model,size_bytes,params,kernel,mode,threads,batch,seq,load_ms,min_ms,\
                         p50_ms,p99_ms,tokens_per_s_mean,tokens_per_s_sd,peak_rss_bytes{more}"
                    ))?;
                }
                csv(out, &row)?;
            }
            Format::Json => {}
        }
        self.rows.push(row);
        out.flush()
    }

    pub fn finish(self, out: &mut Out) -> Result<(), Failure> {
        if let Format::Json = self.format {
            out.json(&self.rows)?;
        }
        out.flush()
    }
}

fn markdown(out: &mut Out, cells: impl Iterator<Item = String>) -> Result<(), Failure> {
    for (i, (cell, width)) in cells.zip(WIDTHS).enumerate() {
        let open = if i == 0 { "|" } else { "" };
        match i {
            0 | 3 | 4 => out.text(&format!("{open} {cell:<width$} |"))?,
            _ => out.text(&format!("{open} {cell:>width$} |"))?,
        }
    }
    out.text("\n")
}

fn cells(row: &Row) -> Vec<String> {
    let ms = |value: f64| format!("{value:.2}");
    let mut cells = vec![
        one_line(&row.model).replace('|', "\\|"),
        size(row.size_bytes),
        count(row.params),
        row.kernel.clone(),
        row.mode.to_owned(),
        row.threads.to_string(),
        row.batch.to_string(),
        row.seq.to_string(),
        ms(row.load_ms),
        ms(row.min_ms),
        ms(row.p50_ms),
        ms(row.p99_ms),
        format!("{:.0} ± {:.0}", row.tokens_per_s_mean, row.tokens_per_s_sd),
        row.peak_rss_bytes.map_or("-".into(), size),
    ];
    if let Some(roofline) = &row.roofline {
        let percent = |rate: f64| format!("{:.1}", 100.0 * rate / roofline.peak_mac_per_s);
        cells.push(format!("{:.1}", roofline.peak_mac_per_s / 1e9));
        cells.push(percent(roofline.linear_mac_per_s));
        cells.push(percent(roofline.forward_mac_per_s));
    }
    cells
}

fn csv(out: &mut Out, row: &Row) -> Result<(), Failure> {
    let model = one_line(&row.model);
    let model = match model.contains([',', '"']) {
        true => format!("\"{}\"", model.replace('"', "\"\"")),
        false => model,
    };
    let more = row.roofline.as_ref().map_or(String::new(), |roofline| {
        format!(
            ",{:.0},{:.0},{:.0}",
            roofline.peak_mac_per_s, roofline.linear_mac_per_s, roofline.forward_mac_per_s
        )
    });
    out.line(format_args!(
        "{model},{},{},{},{},{},{},{},{:.3},{:.3},{:.3},{:.3},{:.1},{:.1},{}{more}",
        row.size_bytes,
        row.params,
        row.kernel,
        row.mode,
        row.threads,
        row.batch,
        row.seq,
        row.load_ms,
        row.min_ms,
        row.p50_ms,
        row.p99_ms,
        row.tokens_per_s_mean,
        row.tokens_per_s_sd,
        row.peak_rss_bytes.map_or(String::new(), |b| b.to_string())
    ))
}
