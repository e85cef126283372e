//! What a run needs to go on where it was stopped: `state.safetensors`.

use std::collections::HashMap;
use std::path::Path;

use safetensors::{Dtype, SafeTensors};
use tch::Tensor;

use super::weights::to_vec;
use crate::artifact::write_file;
use crate::convert::trained::{Values, tensors};
use crate::error::{Error, ErrorKind, Result};

/// Of what is in the file; whoever changes that counts it up.
const LAYOUT: &str = "1";

/// Where a run is.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Place {
    /// The stage's number.
    pub(super) stage: usize,
    /// Steps taken in it.
    pub(super) step: usize,
    /// Steps that the optimizer counts.
    pub(super) optimizer_steps: u64,
    /// The best validation of the stage (accuracy, cosine, or less the divergence from the teacher), and the
    /// epoch after which it was reached.
    pub(super) best: Option<(f64, usize)>,
    /// What became of the stages before.
    pub(super) done: Vec<Stint>,
    /// Bytes of the log: lines after them belong to steps that were lost.
    pub(super) log: u64,
}

/// How long a stage went on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stint {
    /// Epochs that were trained.
    pub(super) epochs: usize,
    /// The epoch whose weights go on: 0 for those it began with.
    pub(super) kept: usize,
}

pub(super) struct State {
    tensors: HashMap<String, Saved>,
    pub(super) place: Place,
}

enum Saved {
    Values(Vec<usize>, Vec<f32>),
    Codes(Vec<u8>),
}

/// A state in the making.
#[derive(Default)]
pub(super) struct NewState {
    values: Vec<(String, Vec<usize>, Vec<f32>)>,
    codes: Vec<(String, [usize; 2], Vec<u8>)>,
}

impl NewState {
    pub(super) fn values(&mut self, name: String, tensor: &Tensor) {
        let shape = tensor.size().iter().map(|&n| n as usize).collect();
        self.values.push((name, shape, to_vec(tensor)));
    }

    /// Codes of matrices, by what they are and the matrix's name.
    pub(super) fn codes(&mut self, what: &str, codes: Vec<(String, [usize; 2], Vec<u8>)>) {
        let named = |(name, shape, codes)| (format!("{what}/{name}"), shape, codes);
        self.codes.extend(codes.into_iter().map(named));
    }

    /// Writes by way of a temporary file: whoever stops the process leaves the last state or this one.
    pub(super) fn write(&self, path: &Path, place: &Place, recipe: &str) -> Result<()> {
        let mut views = Vec::new();
        for (name, shape, values) in &self.values {
            views.push((name.clone(), Values::new(values, shape)));
        }
        for (name, shape, codes) in &self.codes {
            views.push((name.clone(), Values::codes(codes, shape)));
        }
        let mut metadata = HashMap::from([
            ("stage".into(), place.stage.to_string()),
            ("step".into(), place.step.to_string()),
            ("optimizer_steps".into(), place.optimizer_steps.to_string()),
            ("log".into(), place.log.to_string()),
            ("done".into(), stints(&place.done)),
            ("recipe".into(), recipe.to_owned()),
            ("layout".into(), LAYOUT.into()),
        ]);
        if let Some((merit, epoch)) = place.best {
            // As bits: the same number comes back.
            metadata.insert("best".into(), merit.to_bits().to_string());
            metadata.insert("best_epoch".into(), epoch.to_string());
        }
        write_file(path, &tensors(views, Some(metadata))?, true)
    }
}

/// As `3/2 1/1`: the epochs of each stage, and which was kept.
fn stints(done: &[Stint]) -> String {
    let each = (done.iter()).map(|stint| format!("{}/{}", stint.epochs, stint.kept));
    each.collect::<Vec<_>>().join(" ")
}

fn stints_in(text: &str) -> Option<Vec<Stint>> {
    let each = text.split_whitespace().map(|stint| {
        let (epochs, kept) = stint.split_once('/')?;
        Some(Stint {
            epochs: epochs.parse().ok()?,
            kept: kept.parse().ok()?,
        })
    });
    each.collect()
}

impl State {
    /// Reads a state of the run that `recipe` and its data say.
    pub(super) fn read(path: &Path, recipe: &str) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(|e| Error::io(path, e))?;
        Self::parse(&bytes, recipe).map_err(|e| e.in_file(path))
    }

    fn parse(bytes: &[u8], recipe: &str) -> Result<Self> {
        let bad = |message: String| Error::new(ErrorKind::Checkpoint, message);
        let unreadable = |e: safetensors::SafeTensorError| bad(format!("not a saved state: {e}"));
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(unreadable)?;
        let metadata = header.metadata().clone().unwrap_or_default();
        let number = |name: &str| {
            let text = metadata.get(name);
            text.and_then(|text| text.parse::<u64>().ok())
                .ok_or_else(|| bad(format!("not a saved state: no {name}")))
        };
        if metadata.get("recipe").is_none_or(|saved| saved != recipe) {
            let message = "the recipe, the data or the checkpoint have changed since the run was stopped: \
                           without --resume it starts anew";
            return Err(Error::new(ErrorKind::Config, message));
        }
        if metadata.get("layout").is_none_or(|layout| layout != LAYOUT) {
            let message = "the state of another version of this program: without --resume the run starts anew";
            return Err(Error::new(ErrorKind::Config, message));
        }
        let best = match metadata.contains_key("best") {
            true => Some((
                f64::from_bits(number("best")?),
                number("best_epoch")? as usize,
            )),
            false => None,
        };
        let place = Place {
            stage: number("stage")? as usize,
            step: number("step")? as usize,
            optimizer_steps: number("optimizer_steps")?,
            best,
            done: (metadata.get("done"))
                .and_then(|text| stints_in(text))
                .ok_or_else(|| bad("not a saved state: no done".into()))?,
            log: number("log")?,
        };
        let mut tensors = HashMap::new();
        for (name, view) in SafeTensors::deserialize(bytes).map_err(unreadable)?.iter() {
            let saved = match view.dtype() {
                Dtype::F32 => {
                    let values = view.data().as_chunks().0.iter();
                    let values = values.map(|&bytes| f32::from_le_bytes(bytes)).collect();
                    Saved::Values(view.shape().to_vec(), values)
                }
                _ => Saved::Codes(view.data().to_vec()),
            };
            tensors.insert(name.to_owned(), saved);
        }
        Ok(Self { tensors, place })
    }

    pub(super) fn values(&self, name: &str) -> Option<&[f32]> {
        match self.tensors.get(name)? {
            Saved::Values(_, values) => Some(values),
            Saved::Codes(_) => None,
        }
    }

    pub(super) fn tensor(&self, name: &str) -> Option<Tensor> {
        match self.tensors.get(name)? {
            Saved::Values(shape, values) => {
                let shape: Vec<i64> = shape.iter().map(|&n| n as i64).collect();
                Some(Tensor::from_slice(values).view(&shape[..]))
            }
            Saved::Codes(_) => None,
        }
    }

    /// Names that begin with `prefix`, without it.
    pub(super) fn names<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = &'a str> {
        let names = self.tensors.keys();
        names.filter_map(move |name| name.strip_prefix(prefix))
    }

    pub(super) fn codes(&self, name: &str) -> Option<&[u8]> {
        match self.tensors.get(name)? {
            Saved::Codes(codes) => Some(codes),
            Saved::Values(..) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.safetensors");
        let mut new = NewState::default();
        new.values(
            "mean/a".into(),
            &Tensor::from_slice(&[1f32, 2.0, 3.0, 4.0]).view([2, 2]),
        );
        new.codes("codes", vec![("b".into(), [1, 3], vec![7, 8, 9])]);
        new.codes("best_codes", vec![("b".into(), [1, 3], vec![7, 8, 6])]);
        for best in [None, Some((0.1 + 0.2, 3))] {
            let done = [(3, 0), (2, 2)].map(|(epochs, kept)| Stint { epochs, kept });
            let place = Place {
                stage: 1,
                step: 20,
                optimizer_steps: 21,
                best,
                done: done[..best.map_or(0, |_| 2)].to_vec(),
                log: 1 << 40,
            };
            new.write(&path, &place, "r").unwrap();
            let state = State::read(&path, "r").unwrap();
            assert_eq!(state.place, place);
            assert_eq!(state.values("mean/a").unwrap(), [1.0, 2.0, 3.0, 4.0]);
            assert_eq!(state.tensor("mean/a").unwrap().size(), [2, 2]);
            assert_eq!(state.codes("codes/b").unwrap(), [7, 8, 9]);
            assert_eq!(state.codes("best_codes/b").unwrap(), [7, 8, 6]);
            assert_eq!(state.names("mean/").collect::<Vec<_>>(), ["a"]);
        }
        let error = State::read(&path, "other").map(|_| ()).unwrap_err();
        assert!(error.to_string().contains("have changed"), "{error}");
        for cut in [0, 7, 100] {
            let bytes = std::fs::read(&path).unwrap();
            std::fs::write(&path, &bytes[..cut]).unwrap();
            let error = State::read(&path, "r").map(|_| ()).unwrap_err();
            assert!(error.to_string().contains("not a saved state"), "{error}");
            std::fs::write(&path, bytes).unwrap();
        }
    }
}
