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
        self.run_as(isa, threads, texts, queries, false)
    }

    fn run_as(
        &self,
        isa: Isa,
        threads: usize,
        texts: &[Range<usize>],
        queries: Queries,
        rounded: bool,
    ) -> Vec<f32> {
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
        let machine = (isa, Threads(threads));
        attention(machine, &heads, texts, queries, rounded, &mut rows);
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

    /// The largest difference of a context to the exact one; NaN if there is one.
    fn largest_error(&self, rows: &[f32]) -> f64 {
        let width = self.hidden / self.heads;
        let mut largest = 0.0;
        for text in &self.texts {
            for token in text.clone() {
                for head in 0..self.heads {
                    let start = token * self.hidden + head * width;
                    let exact = self.exact(text, token, head);
                    for (y, exact) in rows[start..].iter().zip(exact) {
                        let error = (f64::from(*y) - exact).abs();
                        if error.is_nan() {
                            return error;
                        }
                        largest = f64::max(largest, error);
                    }
                }
            }
        }
        largest
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
            let error = case.largest_error(&rows);
            assert!(error < 4e-6, "{} {width}: {error:e}", isa.name());
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

/// Instruction sets whose attention differs if it is rounded.
fn rounding() -> impl Iterator<Item = Isa> {
    let case = Case::new(&[100], 1, 16);
    Isa::available().into_iter().filter(move |&isa| {
        let [exact, rounded] =
            [false, true].map(|rounded| case.run_as(isa, 1, &case.texts, Queries::All, rounded));
        bits(&exact) != bits(&rounded)
    })
}

#[test]
fn attention_is_rounded_with_avx2_and_beyond() {
    let found: Vec<_> = rounding().map(Isa::name).collect();
    let all = Isa::available().into_iter().map(Isa::name);
    let expected = all.filter(|name| name.starts_with("avx"));
    assert_eq!(found, expected.collect::<Vec<_>>());
}

#[test]
fn rounded_attention_stays_close_to_its_formula() {
    for isa in rounding() {
        for width in [1, 2, 5, 8, 15, 16, 31, 32, 33, 64, 72, 130] {
            let case = Case::new(&[95, 96, 97, 3, 129, 130], 2, width);
            let rows = case.run_as(isa, 1, &case.texts, Queries::All, true);
            let error = case.largest_error(&rows);
            // Of values up to 2.
            assert!(error < 1e-3, "{} {width}: {error:e}", isa.name());
        }
    }
}

#[test]
fn rounded_attention_of_a_text_does_not_depend_on_its_batch_or_threads() {
    for isa in Isa::available() {
        for width in [12, 64] {
            let case = Case::new(&[1, 130, 5, 48, 260], 3, width);
            let run = |threads, texts: &[_]| case.run_as(isa, threads, texts, Queries::All, true);
            let all = run(1, &case.texts);
            for threads in [2, 5] {
                assert_eq!(bits(&all), bits(&run(threads, &case.texts)));
            }
            for text in &case.texts {
                let alone = run(5, std::slice::from_ref(text));
                let range = text.start * case.hidden..text.end * case.hidden;
                assert_eq!(bits(&alone[range.clone()]), bits(&all[range]));
            }
            // One query alone is not rounded.
            let first = |rounded| case.run_as(isa, 1, &case.texts, Queries::First, rounded);
            assert_eq!(bits(&first(false)), bits(&first(true)));
        }
    }
}

/// All factors at their largest: the sums come as near to 2^31 as they can.
#[test]
fn rounded_attention_does_not_overflow() {
    for isa in rounding() {
        // 5,041 weights are 6.5 of 32767: all are rounded up to 7.
        for (width, tokens) in [(64, 700), (63, 99), (1, 100), (256, 100), (2, 5041)] {
            for sign in [1.0, -1.0] {
                let mut case = Case::new(&[tokens], 1, width);
                case.key.fill(3.0);
                case.query.fill(sign * 1e3);
                case.value.fill(sign * 5.0);
                let rows = case.run_as(isa, 1, &case.texts, Queries::All, true);
                for y in &rows {
                    let error = (y - sign * 5.0).abs();
                    assert!(error < 1e-4, "{} {tokens}: {y}", isa.name());
                }
                // One key wins, with a weight of 1.
                case.key[width..].fill(-3.0 * sign);
                case.key[..width].fill(3.0 * sign);
                case.value[..width].fill(-7.0);
                let rows = case.run_as(isa, 1, &case.texts, Queries::All, true);
                assert!(
                    rows.iter().all(|y| (y + 7.0).abs() < 1e-5),
                    "{} {rows:?}",
                    isa.name()
                );
            }
        }
    }
}

#[test]
fn rounded_attention_of_zeros_is_the_mean_and_of_nothing_finite_is_none() {
    for isa in rounding() {
        for tokens in [96, 97, 141] {
            let mut case = Case::new(&[tokens], 2, 16);
            case.key.fill(0.0);
            let rows = case.run_as(isa, 1, &case.texts, Queries::All, true);
            for (at, y) in rows.iter().enumerate() {
                let column = (0..tokens).map(|t| f64::from(case.value[t * 32 + at % 32]));
                let mean = column.sum::<f64>() / tokens as f64;
                assert!((f64::from(*y) - mean).abs() < 2e-4 * tokens as f64 / 32.0);
            }
            for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                for place in 0..3 {
                    let mut case = Case::new(&[4, tokens], 2, 16);
                    let at = (4 + tokens / 2) * 32 + 3;
                    [&mut case.query, &mut case.key, &mut case.value][place][at] = value;
                    let rows = case.run_as(isa, 1, &case.texts, Queries::All, true);
                    for (row, values) in rows.chunks_exact(32).enumerate() {
                        // A query reaches its own row alone.
                        let hit = row >= 4 && (place > 0 || row == 4 + tokens / 2);
                        let nan = values[..16].iter().all(|v| v.is_nan());
                        assert_eq!(nan, hit, "{} {value} {place} {row}", isa.name());
                        assert!(values[16..].iter().all(|v| v.is_finite()));
                    }
                }
            }
        }
    }
}
