//! Looking up the codes of a panel: the inner loop that takes the place of unpacking weights.

use super::LANES;

/// The codes of a panel, block after block, and the table that they look up.
pub(super) struct Blocks<'a, T, I> {
    /// For each block of the input the codes of the panel's outputs.
    pub(super) codes: I,
    /// `[centroids][each]`
    pub(super) table: &'a [T],
    /// Entries of a centroid.
    pub(super) each: usize,
    /// Entries of an output over the whole input.
    pub(super) length: usize,
}

impl<'c, T: Copy, I: Iterator<Item = &'c [u8]>> Blocks<'_, T, I> {
    /// Fills `[group][length][LANES]` with the entries of the codes.
    pub(super) fn decode(self, buffer: &mut [T]) {
        match self.each {
            1 => self.decode_by::<1>(buffer),
            2 => self.decode_by::<2>(buffer),
            4 => self.decode_by::<4>(buffer),
            8 => self.decode_by::<8>(buffer),
            16 => self.decode_by::<16>(buffer),
            _ => self.decode_any(buffer),
        }
    }

    /// Eight outputs at a time: eight entries of the table are turned into columns of the panel.
    fn decode_by<const N: usize>(self, buffer: &mut [T]) {
        let table = self.table.as_chunks::<N>().0;
        for (j, codes) in self.codes.enumerate() {
            for (group, codes) in codes.chunks(LANES).enumerate() {
                let out = &mut buffer[(group * self.length + j * N) * LANES..][..N * LANES];
                let out = out.as_chunks_mut::<LANES>().0;
                if let Ok(codes) = <&[u8; LANES]>::try_from(codes) {
                    let entries = codes.map(|code| &table[usize::from(code)]);
                    for (i, out) in out.iter_mut().enumerate() {
                        *out = entries.map(|entry| entry[i]);
                    }
                } else {
                    for (lane, &code) in codes.iter().enumerate() {
                        let entry = &table[usize::from(code)];
                        out.iter_mut()
                            .zip(entry)
                            .for_each(|(out, &e)| out[lane] = e);
                    }
                }
            }
        }
    }

    fn decode_any(self, buffer: &mut [T]) {
        for (j, codes) in self.codes.enumerate() {
            for (output, &code) in codes.iter().enumerate() {
                let entry = &self.table[usize::from(code) * self.each..][..self.each];
                let start = (output / LANES) * self.length + j * self.each;
                let out = buffer[start * LANES..].as_chunks_mut::<LANES>().0;
                (out.iter_mut().zip(entry)).for_each(|(out, &e)| out[output % LANES] = e);
            }
        }
    }
}
