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

/// A cell of the Markdown table.
struct Cell {
    header: &'static str,
    width: usize,
    /// Text stands at the left, numbers at the right.
    text: bool,
    value: String,
}

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
                    markdown(out, &cells, |cell| cell.header.to_owned())?;
                    markdown(out, &cells, |cell| {
                        let dashes = "-".repeat(cell.width - 1);
                        let end = if cell.text { "-" } else { ":" };
                        format!("{dashes}{end}")
                    })?;
                }
                markdown(out, &cells, |cell| cell.value.clone())?;
            }
            Format::Csv => {
                if first {
                    let more = match row.roofline {
                        Some(_) => ",peak_mac_per_s,linear_mac_per_s,forward_mac_per_s",
                        None => "",
                    };
                    let seq = row.seq.map_or("", |_| ",seq");
                    let (what, ..) = row.rate.parts();
                    out.line(format_args!(
                        "model,size_bytes,params,kernel,mode,threads,batch{seq},load_ms,min_ms,\
                         p50_ms,p99_ms,{what}_per_s_mean,{what}_per_s_sd,peak_rss_bytes{more}"
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

fn markdown(out: &mut Out, cells: &[Cell], of: impl Fn(&Cell) -> String) -> Result<(), Failure> {
    for (i, cell) in cells.iter().enumerate() {
        let open = if i == 0 { "|" } else { "" };
        let (width, value) = (cell.width, of(cell));
        match cell.text {
            true => out.text(&format!("{open} {value:<width$} |"))?,
            false => out.text(&format!("{open} {value:>width$} |"))?,
        }
    }
    out.text("\n")
}

fn cells(row: &Row) -> Vec<Cell> {
    let text = |header, width, value| Cell {
        header,
        width,
        text: true,
        value,
    };
    let number = |header, width, value| Cell {
        text: false,
        ..text(header, width, value)
    };
    let ms = |header, value: f64| number(header, 8, format!("{value:.2}"));
    let mut cells = vec![
        text("model", 16, one_line(&row.model).replace('|', "\\|")),
        number("size", 9, size(row.size_bytes)),
        number("params", 9, count(row.params)),
        text("kernel", 8, row.kernel.clone()),
        text("mode", 5, row.mode.to_owned()),
        number("threads", 7, row.threads.to_string()),
        number("batch", 5, row.batch.to_string()),
    ];
    if let Some(seq) = row.seq {
        cells.push(number("seq", 4, seq.to_string()));
    }
    cells.extend([
        ms("load ms", row.load_ms),
        ms("min ms", row.min_ms),
        ms("p50 ms", row.p50_ms),
        ms("p99 ms", row.p99_ms),
        match row.rate.parts() {
            ("images", mean, sd) => number("images/s", 18, format!("{mean:.1} ± {sd:.1}")),
            (_, mean, sd) => number("tokens/s", 18, format!("{mean:.0} ± {sd:.0}")),
        },
        number("peak RSS", 9, row.peak_rss_bytes.map_or("-".into(), size)),
    ]);
    if let Some(roofline) = &row.roofline {
        let percent = |rate: f64| format!("{:.1}", 100.0 * rate / roofline.peak_mac_per_s);
        cells.extend([
            number(
                "peak GMAC",
                9,
                format!("{:.1}", roofline.peak_mac_per_s / 1e9),
            ),
            number("linear %", 8, percent(roofline.linear_mac_per_s)),
            number("forward %", 9, percent(roofline.forward_mac_per_s)),
        ]);
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
    let seq = row.seq.map_or(String::new(), |seq| format!(",{seq}"));
    // Images a second are few.
    let (_, mean, sd) = row.rate.parts();
    let digits = if row.seq.is_some() { 1 } else { 3 };
    out.line(format_args!(
        "{model},{},{},{},{},{},{}{seq},{:.3},{:.3},{:.3},{:.3},{mean:.digits$},{sd:.digits$},{}{more}",
        row.size_bytes,
        row.params,
        row.kernel,
        row.mode,
        row.threads,
        row.batch,
        row.load_ms,
        row.min_ms,
        row.p50_ms,
        row.p99_ms,
        row.peak_rss_bytes.map_or(String::new(), |b| b.to_string())
    ))
}
