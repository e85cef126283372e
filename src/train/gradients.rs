//! What a model's answers say of its embeddings and of the outputs of its linear layers.

use std::cell::RefCell;
use std::collections::HashMap;

use tch::{Device, Kind, Tensor};

use super::encoder::{Batch, Text};
use super::learner::Learner;
use super::mix;
use super::pass::Pass;
use super::stage::Model;
use super::texts::Texts;
use super::weights::to_vec;
use crate::convert::recode::Sensitivity;
use crate::error::Result;
use crate::models::encoder::Task;

/// Tokens, padding included, whose gradients are computed at once.
const TOKENS: usize = 2048;
/// Divides the logits: answers that are almost certain would count for almost nothing, and errors of codes
/// are not small.
const TEMPERATURE: f64 = 4.0;

impl Model<Texts> {
    /// Gradients of the answers to some texts. Their products have the mean of the Fisher information (of a
    /// classifier), or of the Gauss-Newton matrix (of an embedding model).
    ///
    /// Each text has one gradient, of a sum of its answers with random signs: products of different answers'
    /// gradients cancel out in the mean.
    pub(super) fn gradients(&self, texts: &[&Text], seed: u64) -> Result<Sensitivity> {
        tch::manual_seed((mix(&[seed, 3]) >> 1) as i64);
        let config = &self.learner.config;
        let zeros = |of: &[i64]| Tensor::zeros(of, (Kind::Double, self.device));
        let hidden = config.hidden as i64;
        let mut products = zeros(&[hidden, hidden]);
        let mut tokens = zeros(&[config.vocab_size as i64]);
        let mut positions = zeros(&[config.positions as i64]);
        let mut outputs = HashMap::new();
        let starts: Vec<usize> = (texts.iter())
            .scan(0, |next, text| {
                Some(std::mem::replace(next, *next + text.ids.len()))
            })
            .collect();
        let uses = texts.iter().map(|text| text.ids.len()).sum();
        let mut order: Vec<usize> = (0..texts.len()).collect();
        order.sort_by_key(|&text| texts[text].ids.len());
        let length = |&number: &usize| texts[number].ids.len();
        let mut left = &order[..];
        while !left.is_empty() {
            // Sorted: the last one says how long they all become.
            let fits = |n: usize| n * length(&left[n - 1]) <= TOKENS;
            let most = (1..=left.len()).take_while(|&n| fits(n)).last();
            let (numbers, rest) = left.split_at(most.unwrap_or(1));
            left = rest;
            let batched: Vec<&Text> = numbers.iter().map(|&number| texts[number]).collect();
            let batch = Batch::new(config, &batched, self.device);
            let pass = Pass {
                embedded: Some(RefCell::default()),
                outputs: Some(RefCell::default()),
                ..self.pass()
            };
            let answers = self.learner.forward(&pass, &batch, false)?.answers;
            let scored = match config.task {
                Task::Classification { .. } => {
                    let logarithms = (answers / TEMPERATURE).log_softmax(-1, Kind::Float);
                    logarithms.detach().exp().sqrt() * logarithms
                }
                Task::Embedding { .. } => answers,
            };
            let signs = scored.rand_like().ge(0.5).to_kind(Kind::Float) * 2.0 - 1.0;
            let score = (scored * signs).sum(Kind::Float);
            let embedded = pass.embedded.and_then(RefCell::into_inner);
            let (mut names, mut asked) = (vec![String::new()], Vec::from_iter(embedded));
            for (name, output) in pass.outputs.map(RefCell::into_inner).unwrap_or_default() {
                // Layers that share weights have these codes made for the first of them.
                if !names.contains(&name) {
                    names.push(name);
                    asked.push(output);
                }
            }
            let mut gradients = Tensor::run_backward(&[score], &asked, false, false);

            let gradient = gradients.remove(0).view([-1, hidden]);
            let rows = gradient.index_select(0, &batch.real);
            products += rows.transpose(0, 1).matmul(&rows).to_kind(Kind::Double);
            let squares = square(&rows);
            let real = |ids: &Tensor| ids.view([-1]).index_select(0, &batch.real);
            tokens = tokens.index_add(0, &real(&batch.ids), &squares);
            positions = positions.index_add(0, &real(&batch.positions), &squares);

            for (name, gradient) in names.into_iter().skip(1).zip(gradients) {
                // `[texts]` of a head, else `[texts, tokens]`.
                let of_texts = gradient.dim() == 2;
                let squares = to_vec(&square(&gradient));
                let size = if of_texts { texts.len() } else { uses };
                let all = outputs.entry(name).or_insert_with(|| vec![0f32; size]);
                let padded = squares.len() / numbers.len();
                for (&number, squares) in numbers.iter().zip(squares.chunks_exact(padded)) {
                    match of_texts {
                        true => all[number] = squares[0],
                        false => {
                            let length = texts[number].ids.len();
                            all[starts[number]..][..length].copy_from_slice(&squares[..length]);
                        }
                    }
                }
            }
        }
        let values = |tensor: Tensor| {
            let flat = tensor.to_device(Device::Cpu).view([-1]);
            Vec::<f64>::try_from(flat).expect("a vector of f64")
        };
        Ok(Sensitivity {
            products: values(products),
            tokens: values(tokens),
            positions: values(positions),
            uses,
            outputs,
        })
    }
}

/// Of the vectors in the last dimension.
fn square(vectors: &Tensor) -> Tensor {
    let squares = vectors.to_kind(Kind::Double).square();
    squares.sum_dim_intlist([-1i64].as_slice(), false, Kind::Double)
}
