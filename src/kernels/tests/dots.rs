//! Tables of dot products, which small centroids get: whole, of halves, or none where sums are too large.

use super::super::Codebook;
use super::{Case, Random, check, check_with, pq};

/// A codebook `[256][8]` whose centroids have magnitudes that add up to 129 at most.
fn small(random: &mut Random) -> Codebook {
    let mut values = Vec::new();
    for _ in 0..256 {
        let mut rest = 129;
        let mut centroid: Vec<i8> = (0..8)
            .map(|_| {
                let value = (i64::from(random.int8()) * rest / 127 / 2) as i8;
                rest -= i64::from(value.unsigned_abs());
                value
            })
            .collect();
        // All of it.
        let first = &mut centroid[0];
        *first += (rest as i8) * if *first < 0 { -1 } else { 1 };
        // Less one, where two neighbours would have it to themselves.
        for pair in centroid.chunks_exact_mut(2) {
            if pair.iter().map(|v| v.unsigned_abs()).sum::<u8>() > 128 {
                pair[0] -= pair[0].signum();
            }
        }
        values.extend(centroid);
    }
    Codebook::from_int8(&values, 8, 0.01)
}

#[test]
fn tables_of_dot_products_equal_the_reference() {
    let mut random = Random(5);
    for (seed, columns) in [1, 7, 8, 9, 16, 24, 31, 32, 33, 40, 100, 256, 776]
        .into_iter()
        .enumerate()
    {
        for out in [512, 576, 832, 1088] {
            let mut case = Case::new(pq(8), out, columns, 2 * seed as u64, false);
            case.book = small(&mut random);
            assert!(case.book.sums == 2 && case.book.room == 1);
            for rows in [1, 2, 5, 6, 7, 8, 9, 15, 16, 17, 24, 32, 33, 48] {
                check(&case, rows, rows as u64);
            }
        }
    }
    for out in [512, 1024] {
        let mut case = Case::new(pq(8), out, 64, 1, false);
        case.book = small(&mut random);
        for rows in 1..=70 {
            check(&case, rows, rows as u64);
        }
    }
}

/// Every dot product as large as it may be, and of either sign.
#[test]
fn the_largest_dot_products_of_tables_do_not_overflow() {
    for values in [
        [127, 0, 2, 0, 0, 0, 0, 0],
        [64, 64, 1, 0, 0, 0, 0, 0],
        [17, 16, 16, 16, 16, 16, 16, 16],
        [-16, -16, -16, -16, -16, -16, -16, -17],
        [-1, 127, 0, 0, 0, 0, 0, 1],
        // Neighbours that are too large for tables.
        [65, 64, 0, 0, 0, 0, 0, 0],
        [-2, -127, 0, 0, 0, 0, 0, 0],
    ] {
        for x in [1.0, -1.0] {
            let mut case = Case::new(pq(8), 1024, 800, 0, true);
            case.book = Codebook::from_int8(&values.repeat(256), 8, 0.01);
            assert_eq!(case.book.sums, 2);
            for rows in [1, 5, 16, 24, 32] {
                check_with(&case, &vec![x; rows * 800]);
            }
        }
    }
    // The largest that fit 16 bits, and larger ones.
    for (values, sums) in [
        ([127, 127, 4, 0, 0, 0, 0, 0], 1),
        ([-33, -33, -32, -32, -32, -32, -32, -32], 1),
        ([127, 127, 5, 0, 0, 0, 0, 0], 0),
    ] {
        for x in [1.0, -1.0] {
            let mut case = Case::new(pq(8), 1024, 800, 0, true);
            case.book = Codebook::from_int8(&values.repeat(256), 8, 0.01);
            assert_eq!(case.book.sums, sums);
            for rows in [1, 5, 16] {
                check_with(&case, &vec![x; rows * 800]);
            }
        }
    }
}
