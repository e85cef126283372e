//! Tokens that stand near each other in an embedding table, to replace one by another.

use std::collections::HashMap;

use tch::{Kind, Tensor};

use super::encoder::Text;
use crate::quant::rng::Rng;

/// As in TinyBERT's augmentation of data (Jiao et al. 2020, arXiv 1909.10351).
const NEAREST: i64 = 15;
/// Rows whose cosines with the whole table are computed at once.
const ROWS: usize = 1024;

/// The nearest tokens, by cosine, of each token that texts have.
pub(super) struct Neighbours {
    of: HashMap<u32, Vec<u32>>,
}

impl Neighbours {
    /// Of the rows of `table`, `[tokens, columns]`. Tokens in `fixed` have none, and are nobody's.
    pub(super) fn new(table: &Tensor, texts: &[Text], fixed: &[u32]) -> Self {
        let mut ids: Vec<u32> = texts.iter().flat_map(|text| &text.ids).copied().collect();
        ids.sort_unstable();
        ids.dedup();
        ids.retain(|id| !fixed.contains(id));
        let norms = table.norm_scalaropt_dim(2, [-1], true);
        let unit = table / norms.clamp_min(f64::from(f32::MIN_POSITIVE));
        let nearest = (NEAREST + 1 + fixed.len() as i64).min(table.size()[0]);
        let mut of = HashMap::with_capacity(ids.len());
        for ids in ids.chunks(ROWS) {
            let numbers: Vec<i64> = ids.iter().map(|&id| i64::from(id)).collect();
            let rows = unit.index_select(0, &Tensor::from_slice(&numbers).to_device(unit.device()));
            let (_, found) = rows
                .matmul(&unit.transpose(0, 1))
                .topk(nearest, -1, true, true);
            let found = Vec::<i64>::try_from(found.to_kind(Kind::Int64).view([-1]))
                .expect("a vector of integers");
            for (&id, found) in ids.iter().zip(found.chunks_exact(nearest as usize)) {
                let others = found.iter().map(|&other| other as u32);
                let others = others.filter(|other| *other != id && !fixed.contains(other));
                of.insert(id, others.take(NEAREST as usize).collect());
            }
        }
        Self { of }
    }

    /// The neighbours of a token, the nearest first.
    pub(super) fn of(&self, id: u32) -> &[u32] {
        self.of.get(&id).map_or(&[], Vec::as_slice)
    }

    /// The text with each token replaced with this chance.
    pub(super) fn replace(&self, text: &Text, chance: f64, rng: &mut Rng) -> Text {
        let ids = text.ids.iter().map(|&id| {
            let others = self.of(id);
            match !others.is_empty() && rng.uniform_f64() < chance {
                true => others[rng.below(others.len())],
                false => id,
            }
        });
        Text {
            ids: ids.collect(),
            types: text.types.clone(),
            label: text.label,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_replaced_by_their_neighbours() {
        // Tokens 1 and 2 point one way, 3 and 4 another; 0 is special, 5 is in no text.
        let table = Tensor::from_slice(&[
            1.0f32, 1.0, 1.0, 0.0, 9.0, 1.0, 0.0, 1.0, 0.1, 1.0, -1.0, -1.0,
        ])
        .view([6, 2]);
        let text = Text {
            ids: vec![0, 1, 2, 3, 4, 0],
            types: vec![0; 6],
            label: 1,
        };
        let neighbours = Neighbours::new(&table, std::slice::from_ref(&text), &[0]);
        // There are no more than four others.
        assert_eq!(neighbours.of(1), [2, 4, 3, 5]);
        assert_eq!(neighbours.of(3), [4, 2, 1, 5]);
        assert!(neighbours.of(0).is_empty() && neighbours.of(5).is_empty());
        let mut rng = Rng::new(1);
        let same = neighbours.replace(&text, 0.0, &mut rng);
        assert_eq!(
            (&same.ids, &same.types, same.label),
            (&text.ids, &text.types, 1)
        );
        for _ in 0..100 {
            let other = neighbours.replace(&text, 1.0, &mut rng);
            assert_eq!((other.ids[0], other.ids[5]), (0, 0));
            for (own, other) in text.ids.iter().zip(&other.ids).skip(1).take(4) {
                assert!(neighbours.of(*own).contains(other));
            }
        }
        let half = (0..1000).map(|_| {
            let other = neighbours.replace(&text, 0.5, &mut rng);
            let pairs = text.ids.iter().zip(&other.ids);
            pairs.filter(|(own, other)| own != other).count()
        });
        let half: usize = half.sum();
        assert!((1900..2100).contains(&half), "{half}");
    }
}
