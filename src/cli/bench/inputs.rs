//! Token ids and images to run.

/// Draws token ids.
pub struct Ids<'a> {
    state: u64,
    vocab_size: usize,
    specials: &'a [u32],
}

impl<'a> Ids<'a> {
    pub fn new(seed: u64, vocab_size: usize, specials: &'a [u32]) -> Self {
        Self {
            state: seed,
            vocab_size,
            specials,
        }
    }

    /// `batch` texts of `seq` tokens, between the special tokens that a text has.
    pub fn texts(mut self, batch: usize, seq: usize) -> Vec<Vec<u32>> {
        let mut text = || {
            let mut ids: Vec<u32> = (0..seq).map(|_| self.draw()).collect();
            if let (Some(first), Some(id)) = (ids.first_mut(), self.specials.first()) {
                *first = *id;
            }
            if let ([_, .., last], [_, .., id]) = (&mut ids[..], self.specials) {
                *last = *id;
            }
            ids
        };
        (0..batch).map(|_| text()).collect()
    }

    /// Special ids would mean something within a text.
    fn draw(&mut self) -> u32 {
        loop {
            let id = (splitmix(&mut self.state) % self.vocab_size as u64) as u32;
            if !self.specials.contains(&id) || self.vocab_size <= self.specials.len() {
                return id;
            }
        }
    }
}

/// `batch` images of `values` values, uniform over the range of a normalized picture, about -2 to 2.
pub fn images(mut seed: u64, batch: usize, values: usize) -> Vec<Vec<f32>> {
    let mut value = || (splitmix(&mut seed) >> 40) as f32 / (1 << 22) as f32 - 2.0;
    let mut image = || (0..values).map(|_| value()).collect();
    (0..batch).map(|_| image()).collect()
}

/// splitmix64
fn splitmix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_stand_between_special_tokens() {
        let texts = Ids::new(3, 9, &[0, 2]).texts(2, 200);
        for text in &texts {
            assert_eq!((text[0], text[199]), (0, 2));
            assert!(
                text[1..199]
                    .iter()
                    .all(|id| *id < 9 && *id != 0 && *id != 2)
            );
        }
        assert_ne!(texts[0], texts[1]);
        assert_eq!(texts, Ids::new(3, 9, &[0, 2]).texts(2, 200));
        assert_eq!(Ids::new(3, 9, &[0, 2]).texts(1, 1), [[0]]);
        // A vocabulary of nothing but special tokens does not hang.
        assert_eq!(Ids::new(3, 1, &[0]).texts(1, 3), [[0, 0, 0]]);
    }

    #[test]
    fn images_are_of_the_range_of_pictures() {
        let drawn = images(3, 2, 1000);
        assert_eq!(drawn.len(), 2);
        assert_ne!(drawn[0], drawn[1]);
        assert_eq!(drawn[..1], images(3, 1, 1000));
        let values = || drawn.iter().flatten();
        assert_eq!(values().count(), 2000);
        assert!(values().all(|v| (-2.0..2.0).contains(v)));
        assert!(values().any(|v| *v < -1.9) && values().any(|v| *v > 1.9));
    }
}
