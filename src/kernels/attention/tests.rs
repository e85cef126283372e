//! Attention on every instruction set, against its formula in f64.

use super::*;
use crate::kernels::elementwise::tests::noise;

struct Case {
    query: Vec<f32>,
    key: Vec<f32>,
    value: Vec<f32>,
    hidden: usize,
    heads: usize,
    texts: Vec<Range<usize>>,
}

impl Case {
    fn new(lengths: &[usize], heads: usize, width: usize) -> Self {
        let hidden = heads * width;
        let (mut texts, mut end) = (Vec::new(), 0);
        for length in lengths {
            texts.push(end..end + length);
            end += length;
        }
        let noise =
            |seed| -> Vec<f32> { noise(seed, end * hidden).iter().map(|v| v * 2.0).collect() };
        Self {
            query: noise(1),
            key: noise(2),
            value: noise(3),
            hidden,
            heads,
            texts,
        }
    }

    fn run(&self, isa: Isa, threads: usize, texts: &[Range<usize>], queries: Queries) -> Vec<f32> {
        let heads = Heads {
            key: &self.key,
            value: &self.value,
            hidden: self.hidden,
            heads: self.heads,
        };
        let mut rows = match queries {
            Queries::All => self.query.clone(),
            Queries::First => (texts.iter())
                .flat_map(|text| &self.query[text.start * self.hidden..][..self.hidden])
                .copied()
                .collect(),
        };
        attention((isa, Threads(threads)), &heads, texts, queries, &mut rows);
        rows
    }

    /// The context of one head of one token, in f64.
    fn exact(&self, text: &Range<usize>, token: usize, head: usize) -> Vec<f64> {
        let width = self.hidden / self.heads;
        let part = |values: &[f32], token: usize| -> Vec<f64> {
            let start = token * self.hidden + head * width;
            values[start..][..width]
                .iter()
                .map(|&v| f64::from(v))
                .collect()
        };
        let query = part(&self.query, token);
        let dot = |key: Vec<f64>| query.iter().zip(key).map(|(q, k)| q * k).sum::<f64>();
        let scores: Vec<f64> = (text.clone())
            .map(|t| dot(part(&self.key, t)) / (width as f64).sqrt())
            .collect();
        let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let total: f64 = scores.iter().map(|s| (s - largest).exp()).sum();
        let mut context = vec![0.0; width];
        for (t, score) in text.clone().zip(scores) {
            let weight = (score - largest).exp() / total;
            for (c, v) in context.iter_mut().zip(part(&self.value, t)) {
                *c += weight * v;
            }
        }
        context
    }
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

#[test]
fn it_equals_its_formula_for_any_width_and_number_of_tokens() {
    for isa in Isa::available() {
        for width in [1, 5, 8, 12, 16, 31, 32, 64, 72] {
            let case = Case::new(&[1, 2, 7, 8, 9, 17, 24, 25, 70, 3], 2, width);
            let rows = case.run(isa, 1, &case.texts, Queries::All);
            for text in &case.texts {
                for token in text.clone() {
                    for head in 0..2 {
                        let start = token * case.hidden + head * width;
                        let exact = case.exact(text, token, head);
                        for (y, exact) in rows[start..].iter().zip(exact) {
                            let error = (f64::from(*y) - exact).abs();
                            assert!(error < 4e-6, "{} {width}: {error:e}", isa.name());
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn a_text_does_not_depend_on_its_batch_its_queries_or_threads() {
    for isa in Isa::available() {
        for width in [12, 32, 64] {
            let case = Case::new(&[1, 130, 5, 48, 260], 3, width);
            let all = case.run(isa, 1, &case.texts, Queries::All);
            for threads in [2, 5] {
                let again = case.run(isa, threads, &case.texts, Queries::All);
                assert_eq!(bits(&all), bits(&again));
            }
            let row = |rows: &[f32], row: usize| bits(&rows[row * case.hidden..][..case.hidden]);
            for threads in [1, 5] {
                let first = case.run(isa, threads, &case.texts, Queries::First);
                for (i, text) in case.texts.iter().enumerate() {
                    assert_eq!(row(&first, i), row(&all, text.start));
                }
            }
            for text in &case.texts {
                for threads in [1, 5] {
                    let texts = std::slice::from_ref(text);
                    let alone = case.run(isa, threads, texts, Queries::All);
                    for t in text.clone() {
                        assert_eq!(row(&alone, t), row(&all, t));
                    }
                }
            }
        }
    }
}

#[test]
fn a_score_that_is_not_a_number_makes_the_context_none() {
    for isa in Isa::available() {
        for token in 0..30 {
            for value in [f32::NAN, f32::INFINITY] {
                let mut case = Case::new(&[4, 30], 2, 16);
                case.key[(4 + token) * 32 + 3] = value;
                let rows = case.run(isa, 1, &case.texts, Queries::All);
                for (row, values) in rows.chunks_exact(32).enumerate() {
                    // An infinite key may give a score of minus infinity, which is a weight of 0.
                    let hit = row >= 4 && (value.is_nan() || case.query[row * 32 + 3] > 0.0);
                    let nan = values[..16].iter().all(|v| v.is_nan());
                    assert_eq!(nan, hit, "{} {token} {value} {row}", isa.name());
                    assert!(values[16..].iter().all(|v| v.is_finite()));
                }
            }
        }
    }
}
