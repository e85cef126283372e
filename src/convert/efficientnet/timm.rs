//! What `timm` writes beside a network's weights (`timm.models.save_for_hf`, the hub's directories): a
//! `config.json` with the network's name, how pictures are prepared, and what its classes are called.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use serde_json::Value;

use super::super::config::Json;
use super::family::Network;
use super::{Variant, known};
use crate::error::Result;
use crate::models::efficientnet::{Config, Crop, Filter};

/// What a picture's side is cut to where nothing is said (`timm.data.constants`).
const CROP: f64 = 0.875;
/// Arguments of a network's making that change nothing of what it answers.
const HARMLESS: [&str; 6] = [
    "num_classes",
    "drop_rate",
    "drop_path_rate",
    "drop_connect_rate",
    "scriptable",
    "exportable",
];

/// A `config.json` of timm's.
pub(in super::super) struct Timm {
    json: Json,
    /// `pretrained_cfg`; files of some years ago have its fields beside the architecture.
    pretrained: Option<Json>,
}

impl Timm {
    /// That of a directory; `None` if there is none, or one of another kind.
    pub(in super::super) fn read(directory: &Path) -> Result<Option<Self>> {
        if !directory.is_dir() {
            return Ok(None);
        }
        let path = directory.join("config.json");
        let Some(json) = Json::read(path.clone())? else {
            return Ok(None);
        };
        if json.get("architecture").is_none() {
            return Ok(None);
        }
        let pretrained = match json.get("pretrained_cfg") {
            None => None,
            Some(Value::Object(object)) => Some(Json::made(path, object.clone())),
            Some(_) => return Err(json.fail("pretrained_cfg", "not an object")),
        };
        Ok(Some(Self { json, pretrained }))
    }

    pub(super) fn network(&self) -> Result<(Network, Option<Variant>)> {
        let name = self.json.string("architecture")?.unwrap_or_default();
        // What a tag would say is in the file.
        let name = name.split('.').next().unwrap_or(name);
        self.check()?;
        known(name).map_err(|e| self.json.fail("architecture", e))
    }

    /// The same, where a name is given, too, which has to be that of the file.
    pub(super) fn network_named(&self, name: &str) -> Result<(Network, Option<Variant>)> {
        let (of_file, given) = (self.network()?, known(name)?);
        let fill = |variant: Option<Variant>| variant.map(|variant| variant.fill);
        // efficientnet-b0 leaves open which of the two it is.
        if of_file.0 != given.0 || (given.1.is_some() && fill(of_file.1) != fill(given.1)) {
            let message = format!("not {name}, as is asked for");
            return Err(self.json.fail("architecture", message));
        }
        Ok(of_file)
    }

    /// What would make another network of it.
    fn check(&self) -> Result<()> {
        match self.json.string("global_pool")? {
            None | Some("avg") => {}
            Some(other) => {
                let message = format!("{other:?}; only \"avg\" is supported");
                return Err(self.json.fail("global_pool", message));
            }
        }
        let arguments = match self.json.get("model_args") {
            None => return Ok(()),
            Some(Value::Object(arguments)) => arguments,
            Some(_) => return Err(self.json.fail("model_args", "not an object")),
        };
        for (name, value) in arguments {
            let usual = match name.as_str() {
                "in_chans" => value == 3,
                "global_pool" => value == "avg",
                name => HARMLESS.contains(&name) || value.is_null(),
            };
            if !usual {
                let message = format!("{value} makes another network, which is not supported");
                return Err(self.json.fail(&format!("model_args.{name}"), message));
            }
        }
        Ok(())
    }

    /// Gives a network the preparation of pictures that the file says, at this size if there is one. Returns
    /// what is worth telling.
    pub(super) fn prepare(
        &self,
        config: &mut Config,
        size: Option<usize>,
    ) -> Result<Option<String>> {
        let of_file = self.sides("input_size")?;
        let input = &mut config.input;
        input.size = size.or(of_file).unwrap_or(input.size);
        // timm's own evaluation resizes first.
        let mode = self.string("crop_mode")?;
        let tested = self.sides("test_input_size")?;
        let (field, share) = match self.number("test_crop_pct")? {
            Some(share) if size.is_some() && size == tested => ("test_crop_pct", share),
            _ => ("crop_pct", self.number("crop_pct")?.unwrap_or(CROP)),
        };
        if !(0.5..=1.0).contains(&share) {
            let message = format!("{share}; a share of 0.5 to 1 is supported");
            return Err(self.fail(field, message));
        }
        // As timm, down to the rounding.
        input.resize = (input.size as f64 / share).floor() as usize;
        input.crop = match mode {
            None | Some("center") => Crop::AfterResize,
            Some("squash") if input.resize == input.size => Crop::Whole,
            Some(other) => {
                let message = format!("{other:?} with {field} {share} is not supported");
                return Err(self.fail("crop_mode", message));
            }
        };
        input.filter = match self.string("interpolation")? {
            None | Some("bicubic") => Filter::Bicubic,
            Some("bilinear") => Filter::Bilinear,
            Some(other) => {
                let message = format!("{other:?}; bicubic and bilinear are supported");
                return Err(self.fail("interpolation", message));
            }
        };
        for (field, values) in [("mean", &mut input.mean), ("std", &mut input.deviation)] {
            if let Some(colors) = self.colors(field)? {
                let right = |v: &f32| v.is_finite() && (field == "mean" || *v > 0.0);
                if !colors.iter().all(right) {
                    return Err(self.fail(field, "not three finite numbers, or not above 0"));
                }
                *values = colors;
            }
        }
        Ok(tested.filter(|tested| *tested != input.size).map(|tested| {
            format!("its config.json has another size for evaluation: --image-size {tested}")
        }))
    }

    /// The classes' names, if the file has any.
    pub(super) fn labels<'a>(&'a self, count: usize) -> Result<Option<Vec<String>>> {
        // `labels` is what timm called them before.
        let keys = ["label_names", "labels"].into_iter();
        let places = keys.flat_map(|key| [(&self.json, key), (self.weights(), key)]);
        let Some((of, field)) = places.into_iter().find(|(of, key)| of.get(key).is_some()) else {
            return Ok(None);
        };
        let names: Vec<&Value> = match of.get(field) {
            Some(Value::Array(names)) => names.iter().collect(),
            Some(Value::Object(names)) => {
                let of_class = |class: usize| {
                    let name = names.get(&class.to_string());
                    name.ok_or_else(|| of.fail(field, format!("class {class} is missing")))
                };
                let named: Result<Vec<&Value>> = (0..names.len()).map(of_class).collect();
                named?
            }
            _ => return Err(of.fail(field, "neither a list nor an object")),
        };
        if names.len() != count {
            let message = format!("{} names for {count} logits", names.len());
            return Err(of.fail(field, message));
        }
        // WordNet's synsets, for instance, have descriptions that people can read.
        let described = match of.get("label_descriptions") {
            Some(Value::Object(described)) => Some(described),
            _ => None,
        };
        let text = |(class, name): (usize, &&'a Value)| {
            let name = name.as_str().filter(|name| !name.trim().is_empty());
            let wrong = || format!("the name of class {class} is empty, or not a string");
            name.ok_or_else(|| of.fail(field, wrong()))
        };
        let names: Vec<&str> = (names.iter().enumerate())
            .map(text)
            .collect::<Result<_>>()?;
        let description = |name: &str| {
            let text = described.and_then(|described| described.get(name)?.as_str());
            text.filter(|text| !text.trim().is_empty())
        };
        let mut uses: HashMap<&str, usize> = HashMap::new();
        for name in &names {
            *uses.entry(description(name).unwrap_or(name)).or_default() += 1;
        }
        // Two of ImageNet's are cranes, a bird and a machine.
        let readable = |name: &&str| match description(name) {
            Some(text) if uses[text] > 1 => format!("{text} ({name})"),
            text => text.unwrap_or(name).to_string(),
        };
        let readable: Vec<String> = names.iter().map(readable).collect();
        let mut seen = HashSet::new();
        if let Some(twice) = readable.iter().find(|name| !seen.insert(*name)) {
            return Err(of.fail(field, format!("two classes are called {twice:?}")));
        }
        Ok(Some(readable))
    }

    /// Where the fields about the weights are.
    fn weights(&self) -> &Json {
        self.pretrained.as_ref().unwrap_or(&self.json)
    }

    fn fail(&self, field: &str, message: impl std::fmt::Display) -> crate::error::Error {
        match &self.pretrained {
            Some(of) => of.fail(&format!("pretrained_cfg.{field}"), message),
            None => self.json.fail(field, message),
        }
    }

    fn string(&self, field: &str) -> Result<Option<&str>> {
        match self.weights().get(field) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(self.fail(field, format!("{other} is not a string"))),
        }
    }

    /// Height and width, which have to be the same, of three colours.
    fn sides(&self, field: &str) -> Result<Option<usize>> {
        let Some(value) = self.weights().get(field) else {
            return Ok(None);
        };
        let sizes: Option<Vec<u64>> =
            (value.as_array()).map(|sizes| sizes.iter().map_while(Value::as_u64).collect());
        match sizes.as_deref() {
            Some(&[3, high, wide]) if high == wide && (1..=1 << 16).contains(&high) => {
                Ok(Some(high as usize))
            }
            _ => Err(self.fail(field, format!("{value} is not [3, N, N]"))),
        }
    }

    fn number(&self, field: &str) -> Result<Option<f64>> {
        match self.weights().get(field) {
            None => Ok(None),
            Some(value) => match value.as_f64() {
                Some(number) => Ok(Some(number)),
                None => Err(self.fail(field, format!("{value} is not a number"))),
            },
        }
    }

    /// A value for each colour, from 0 to 1 there and from 0 to 255 here.
    fn colors(&self, field: &str) -> Result<Option<[f32; 3]>> {
        let Some(value) = self.weights().get(field) else {
            return Ok(None);
        };
        let numbers: Option<Vec<f64>> =
            (value.as_array()).map(|numbers| numbers.iter().map_while(Value::as_f64).collect());
        match numbers.as_deref() {
            Some(&[red, green, blue]) => Ok(Some([red, green, blue].map(|v| (255.0 * v) as f32))),
            _ => Err(self.fail(field, format!("{value} is not three numbers"))),
        }
    }
}
