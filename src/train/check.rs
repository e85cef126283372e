//! What a recipe may say, as far as that can be told without a model.

use std::collections::HashSet;

use super::recipe::{Part, Recipe, Stage, config};
use crate::error::Result;

const MAX_THREADS: usize = 1024;
const GROUPS: [&str; 5] = ["ffn", "attention", "embedding", "position", "head"];
const GROUPS_OF_IMAGES: [&str; 6] = [
    "stem",
    "pointwise",
    "depthwise",
    "squeeze",
    "classifier",
    // A layer: the last of the pointwise ones.
    "features",
];

impl Recipe {
    pub(super) fn check(&self) -> Result<()> {
        let ensure = |holds: bool, message: &str| match holds {
            true => Ok(()),
            false => Err(config(message.into())),
        };
        ensure(self.batch > 0, "batch is at least 1")?;
        ensure(
            self.accumulate > 0 && self.accumulate <= self.batch,
            "accumulate is from 1 to batch",
        )?;
        ensure(self.save > 0, "save is at least 1")?;
        ensure(
            self.threads.is_none_or(|n| (1..=MAX_THREADS).contains(&n)),
            "threads is from 1 to 1024",
        )?;
        ensure(below_one(self.dropout), "dropout is from 0 to below 1")?;
        ensure(
            below_one(self.label_smoothing),
            "label-smoothing is from 0 to below 1",
        )?;
        ensure(!self.stages.is_empty(), "there is no [[stage]]")?;
        ensure(
            self.data.label.is_some() || self.teacher.is_some(),
            "without data.label a teacher is needed",
        )?;
        for (name, part) in [
            ("validation", &self.data.validation),
            ("test", &self.data.test),
        ] {
            match part {
                Part::Share(share) => ensure(
                    below_one(*share),
                    &format!("data.{name}: a share is from 0 to below 1"),
                )?,
                Part::Fold { .. } if name == "validation" => {
                    return Err(config("data.validation: folds are for test".into()));
                }
                Part::Fold { fold, of } => ensure(
                    fold < of && *of >= 2,
                    "data.test: fold is below of, and of at least 2",
                )?,
                Part::File(_) => {}
            }
        }
        self.check_kind()?;
        if self.data.unlabelled.is_some() && !self.stages.iter().any(Stage::learns_from_teacher) {
            let message = "data.unlabelled: no stage learns from the teacher alone";
            return Err(config(message.into()));
        }
        self.plan()?;
        let mut names = HashSet::new();
        for (number, stage) in self.stages.iter().enumerate() {
            let mut so_far = self.stages[..=number].iter();
            let wrong = |message: &str| config(format!("stage {:?}: {message}", stage.name));
            self.check_stage(stage).map_err(|e| wrong(e.message()))?;
            if !names.insert(&*stage.name) {
                return Err(wrong("there are two of this name"));
            }
            if stage.reassign.is_some() && so_far.all(|stage| stage.quantize.is_empty()) {
                return Err(wrong(
                    "reassign is for codes, and no stage has made any by then",
                ));
            }
            if stage.patience.is_some() && self.data.validation == Part::Share(0.0) {
                return Err(wrong("patience needs data.validation"));
            }
        }
        Ok(())
    }

    /// What is for texts alone, and for images alone.
    fn check_kind(&self) -> Result<()> {
        let wrong = |message: &str| Err(config(message.into()));
        let data = &self.data;
        if data.image.is_none() {
            if data.text.is_none() {
                return wrong("data.text or data.image is missing");
            }
            for (name, given) in [
                ("network", self.network.is_some()),
                ("data.augment", data.augment.is_some()),
            ] {
                if given {
                    return Err(config(format!("{name} is for images")));
                }
            }
            return match self.model {
                Some(_) => Ok(()),
                None => wrong("model is missing"),
            };
        }
        let distills = self
            .stages
            .iter()
            .filter_map(|stage| stage.distill.as_ref());
        let mut stages = self.stages.iter();
        let weighed = stages.any(|stage| stage.weigh_answers == Some(true));
        let varied = distills.clone().any(|d| d.splice > 0.0 || d.replace > 0.0);
        for (name, given) in [
            ("data.text", data.text.is_some()),
            ("data.text-b", data.text_b.is_some()),
            ("data.max-tokens", data.max_tokens.is_some()),
            ("layers", self.layers.is_some()),
            ("share", self.share > 1),
            ("distill.splice or distill.replace", varied),
            ("weigh-answers", weighed),
            (
                "distill.embedding",
                distills.clone().any(|d| d.embedding.is_some()),
            ),
        ] {
            if given {
                return Err(config(format!("{name} is for texts")));
            }
        }
        if let Some(augment) = data.augment
            && !(augment.area > 0.0 && augment.area <= 1.0)
        {
            return wrong("data.augment.area is a share, above 0 and at most 1");
        }
        if data.label.is_none() && self.model.is_none() {
            return wrong("model: without data.label there must be one");
        }
        match &self.network {
            Some(network) => network.check(self.model.is_some()),
            None if self.model.is_none() => wrong("model or network is missing"),
            None => Ok(()),
        }
    }

    fn check_stage(&self, stage: &Stage) -> Result<()> {
        let positive = |value: f64| value > 0.0 && value.is_finite();
        let not_negative = |value: f64| value >= 0.0 && value.is_finite();
        for (name, right) in [
            ("learning-rate", not_negative(stage.learning_rate)),
            (
                "centroid-learning-rate",
                not_negative(stage.centroid_learning_rate),
            ),
            ("warmup", (0.0..=1.0).contains(&stage.warmup)),
            ("weight-decay", not_negative(stage.weight_decay)),
            ("clip", positive(stage.clip)),
            ("layer-drop", below_one(stage.layer_drop)),
            ("patience", stage.patience != Some(0)),
            ("reassign", stage.reassign != Some(0)),
            ("calibrate", stage.calibrate != Some(0)),
        ] {
            if !right {
                return Err(config(format!("{name} is out of range")));
            }
        }
        if stage.calibrate.is_some() && stage.weigh_inputs {
            return Err(config(
                "calibrate goes beyond weigh-inputs: leave that out".into(),
            ));
        }
        if stage.calibrate.is_none() && stage.weigh_answers.is_some() {
            return Err(config("weigh-answers goes with calibrate".into()));
        }
        if stage.calibrate.is_some() && stage.quantize.is_empty() {
            return Err(config(
                "calibrate is for codes, and quantize names no group".into(),
            ));
        }
        if stage.weigh_inputs && stage.quantize.is_empty() {
            return Err(config(
                "weigh-inputs is for codes, and quantize names no group".into(),
            ));
        }
        let of_noise = stage.noise.iter().filter_map(|noise| noise.groups.as_ref());
        for group in stage.quantize.iter().chain(of_noise.flatten()) {
            let known = match self.data.image {
                None => &GROUPS[..],
                Some(_) => &GROUPS_OF_IMAGES,
            };
            // Names of tensors are looked for once there is a model.
            if !known.contains(&&**group) && !group.contains('.') {
                let known = known.join(", ");
                return Err(config(format!(
                    "group {group:?} is unknown; known: {known}"
                )));
            }
        }
        if let Some(noise) = &stage.noise {
            noise.check()?;
            if stage.epochs == 0 {
                return Err(config("noise is for training, and epochs is 0".into()));
            }
        }
        if self.data.label.is_none() && stage.distill.is_none() && stage.epochs > 0 {
            return Err(config(
                "without data.label there is nothing to learn but distill".into(),
            ));
        }
        if let Some(distill) = &stage.distill {
            if self.teacher.is_none() {
                return Err(config("distill needs a teacher".into()));
            }
            let wrong = match self.data.label {
                Some(_) => distill
                    .embedding
                    .map(|_| "embedding is for models without labels"),
                None if distill.labels != 0.0 => Some("labels: the data have none"),
                None if self.data.image.is_some() => None,
                None => distill.logits.map(|_| "logits are of models with labels"),
            };
            if let Some(wrong) = wrong {
                return Err(config(format!("distill.{wrong}")));
            }
            let parts = [
                distill.labels,
                self.of_logits(distill),
                self.of_embedding(distill),
                distill.hidden,
            ];
            if !parts.iter().all(|&part| not_negative(part))
                || parts.iter().all(|&part| part == 0.0)
            {
                let message = "distill: parts are not negative, and not all 0";
                return Err(config(message.into()));
            }
            if !positive(distill.temperature) {
                return Err(config("distill.temperature is above 0".into()));
            }
            if distill.splice > 0.0 && self.data.text_b.is_some() {
                return Err(config(
                    "distill.splice is for single texts: with data.text-b it would part pairs"
                        .into(),
                ));
            }
            for (key, chance) in [("splice", distill.splice), ("replace", distill.replace)] {
                if !(0.0..=1.0).contains(&chance) {
                    return Err(config(format!("distill.{key} is a chance, 0 to 1")));
                }
                if chance > 0.0 && distill.labels > 0.0 {
                    return Err(config(format!(
                        "distill.{key} makes texts that labels do not hold for: leave distill.labels out"
                    )));
                }
            }
        }
        Ok(())
    }
}

fn below_one(value: f64) -> bool {
    (0.0..1.0).contains(&value)
}
