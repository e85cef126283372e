//! A log as a picture: the loss, and below it accuracy or cosine in validation, stage by stage.

use std::path::Path;

use plotters::prelude::*;
use serde::Deserialize;

use crate::artifact::write_file;
use crate::error::{Error, ErrorKind, Result};
use crate::files;

/// Bytes of the longest log that is drawn.
const LONGEST: u64 = 1 << 30;
const SIZE: (u32, u32) = (960, 640);
/// The largest value that is drawn: axes beyond have no end.
const MOST: f64 = 1e30;

#[derive(Deserialize)]
struct Line {
    event: String,
    stage: Option<String>,
    step: Option<u64>,
    of: Option<u64>,
    loss: Option<f64>,
    epoch: Option<u64>,
    accuracy: Option<f64>,
    cosine: Option<f64>,
    agreement: Option<f64>,
}

/// Points of a log; the horizontal axis counts the steps of all stages.
#[derive(Default)]
struct Curves {
    loss: Vec<(f64, f64)>,
    /// Validation, in hundredths.
    scores: Vec<(f64, f64)>,
    /// What these are.
    score: &'static str,
    /// Where each stage begins, and its name.
    stages: Vec<(f64, String)>,
    steps: f64,
}

/// Draws the `log.jsonl` of a run as SVG.
///
/// # Errors
/// If the log cannot be read, has a line that is not one of a log, or no steps, or if the picture cannot be
/// written.
pub fn plot(log: impl AsRef<Path>, picture: impl AsRef<Path>) -> Result<()> {
    let (log, picture) = (log.as_ref(), picture.as_ref());
    let text = files::regular(log, LONGEST)?;
    let text = String::from_utf8_lossy(&text);
    let curves = Curves::read(&text).map_err(|e| e.in_file(log))?;
    let mut svg = String::new();
    curves.draw(&mut svg).map_err(|e| {
        Error::new(ErrorKind::Input, format!("cannot be drawn: {e}")).in_file(picture)
    })?;
    write_file(picture, svg.as_bytes(), true)
}

impl Curves {
    fn read(text: &str) -> Result<Self> {
        let wrong = |message: String| Error::new(ErrorKind::Input, message);
        let mut curves = Self::default();
        // Steps of the stages before, and of this one.
        let (mut before, mut within) = (0, 0);
        // What a run that was killed wrote last may be cut off.
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        for (number, line) in (1..).zip(text[..whole].lines()) {
            let line: Line =
                serde_json::from_str(line).map_err(|e| wrong(format!("line {number}: {e}")))?;
            if let Some(name) = line.stage
                && curves.stages.last().is_none_or(|(_, last)| *last != name)
            {
                before += within;
                within = 0;
                curves.stages.push((before as f64, name));
            }
            let scores = [
                (line.accuracy, "validation accuracy, %"),
                (line.cosine, "validation cosine x 100"),
                (line.agreement, "validation, the teacher's answer, %"),
            ];
            let score = (scores.into_iter()).find_map(|(score, name)| Some((score?, name)));
            let mut drawn = line.loss.into_iter().chain(score.map(|(score, _)| score));
            if let Some(value) = drawn.find(|value| value.abs() > MOST) {
                return Err(wrong(format!("line {number}: {value:e} cannot be drawn")));
            }
            match (&*line.event, line.step, line.loss, score) {
                ("step", Some(step), Some(loss), _) => {
                    within = step;
                    curves.loss.push(((before + step) as f64, loss));
                    curves.steps = (before + line.of.unwrap_or(step)) as f64;
                }
                ("validation", _, _, Some((score, name))) if line.epoch.is_some() => {
                    // It comes after the step that ends the epoch; epoch 0 before the first.
                    let at = before + if line.epoch == Some(0) { 0 } else { within };
                    curves.scores.push((at as f64, 100.0 * score));
                    curves.score = name;
                }
                _ => {}
            }
        }
        match curves.loss.is_empty() {
            true => Err(wrong("there are no steps".into())),
            false => Ok(curves),
        }
    }

    fn draw(&self, svg: &mut String) -> std::result::Result<(), Box<dyn std::error::Error>> {
        let area = SVGBackend::with_string(svg, SIZE).into_drawing_area();
        area.fill(&WHITE)?;
        let (upper, lower) = area.split_vertically(SIZE.1 / 2);
        let most = self.loss.iter().map(|point| point.1).fold(0.0, f64::max);
        self.panel(
            &upper,
            "loss",
            0.0..1.05 * most.max(1e-9),
            &self.loss,
            &BLUE,
        )?;
        let scores = self.scores.iter().map(|point| point.1);
        let least = scores.clone().fold(100.0, f64::min);
        let most = scores.fold(least, f64::max);
        let range = (least - 1.0).floor()..(most + 1.0).ceil();
        let name = match self.score {
            "" => "validation",
            name => name,
        };
        self.panel(&lower, name, range, &self.scores, &RED)?;
        area.present()?;
        Ok(())
    }

    fn panel(
        &self,
        area: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>,
        name: &str,
        range: std::ops::Range<f64>,
        points: &[(f64, f64)],
        colour: &RGBColor,
    ) -> std::result::Result<(), Box<dyn std::error::Error>> {
        let top = range.end;
        let mut chart = ChartBuilder::on(area)
            .margin(12)
            .x_label_area_size(36)
            .y_label_area_size(56)
            .build_cartesian_2d(0.0..self.steps.max(1.0), range.clone())?;
        (chart.configure_mesh())
            .x_desc("steps")
            .y_desc(name)
            .light_line_style(WHITE)
            .draw()?;
        for (start, stage) in &self.stages {
            let line = [(*start, range.start), (*start, top)];
            chart.draw_series(LineSeries::new(line, BLACK.mix(0.3)))?;
            let label = Text::new(stage.clone(), (*start, top), ("sans-serif", 13));
            chart.draw_series([label])?;
        }
        chart.draw_series(LineSeries::new(points.iter().copied(), colour))?;
        if points.len() < 100 {
            let dot = |&point: &(f64, f64)| Circle::new(point, 3, colour.filled());
            chart.draw_series(points.iter().map(dot))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = r#"{"event":"step","stage":"a","step":10,"of":20,"loss":2.0,"gradient_norm":1.0}
{"event":"step","stage":"a","step":20,"of":20,"loss":1.0}
{"event":"validation","stage":"a","epoch":1,"accuracy":0.5}
{"event":"quantized","stage":"b","tensor":"t","relative_error":0.5}
{"event":"validation","stage":"b","epoch":0,"accuracy":0.25}
{"event":"step","stage":"b","step":10,"of":30,"loss":0.5}
{"event":"test","mode":"int8","accuracy":0.75}
"#;

    #[test]
    fn steps_of_stages_follow_each_other() {
        let curves = Curves::read(LOG).unwrap();
        assert_eq!(curves.loss, [(10.0, 2.0), (20.0, 1.0), (30.0, 0.5)]);
        // As a killed run leaves it.
        let curves = Curves::read(&format!("{LOG}{{\"event\":\"st")).unwrap();
        assert_eq!(curves.loss.len(), 3);
        assert_eq!(curves.scores, [(20.0, 50.0), (20.0, 25.0)]);
        assert_eq!(curves.stages, [(0.0, "a".into()), (20.0, "b".into())]);
        assert_eq!(curves.steps, 50.0);
    }

    #[test]
    fn scores_are_what_the_log_has() {
        for (name, expected) in [("cosine", "cosine"), ("agreement", "the teacher's answer")] {
            let curves = Curves::read(&LOG.replace("accuracy", name)).unwrap();
            assert_eq!(curves.scores.len(), 2);
            assert!(curves.score.contains(expected), "{}", curves.score);
        }
    }

    #[test]
    fn a_log_becomes_a_picture() {
        let directory = tempfile::tempdir().unwrap();
        let [log, picture] = ["log.jsonl", "log.svg"].map(|name| directory.path().join(name));
        std::fs::write(&log, LOG).unwrap();
        plot(&log, &picture).unwrap();
        let svg = std::fs::read_to_string(&picture).unwrap();
        assert!(
            svg.starts_with("<svg")
                && svg.contains("validation accuracy")
                && svg.contains("polyline")
        );
        let huge = LOG.replace("2.0", "1.79e308");
        let right = LOG.replace("0.25", "1e308");
        for (text, expected) in [
            ("", "there are no steps"),
            ("{\n", "line 1: "),
            (&huge, "line 1: 1.79e308 cannot be drawn"),
            (&right, "line 5: 1e308 cannot be drawn"),
        ] {
            std::fs::write(&log, text).unwrap();
            let error = plot(&log, &picture).unwrap_err().to_string();
            assert!(
                error.contains(expected) && error.contains("log.jsonl"),
                "{error}"
            );
        }
    }
}
