//! Times of single products for `tools/growth/run`, as JSON lines: one thread, blocks of 8, `int8`.
//!
//! ```text
//! growth WIDTH[,WIDTH...] ROWS[,ROWS...]
//! ```
//!
//! A product is `[rows, width] x [width, width]`. Each is timed in turn, round after round, so that a
//! slow moment of the machine does not fall on one size alone; what is printed is each one's fastest
//! round and the median.

use std::error::Error;
use std::time::Instant;

use centroid::bench::Matmul;

const ROUNDS: usize = 15;
/// Nanoseconds of a round of one size, about.
const ROUND: u128 = 4_000_000;

fn numbers(list: &str) -> Result<Vec<usize>, Box<dyn Error>> {
    let number = |text: &str| text.parse::<usize>().map_err(Into::into);
    list.split(',').map(number).collect()
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [widths, rows] = &arguments[..] else {
        return Err("growth WIDTHS ROWS".into());
    };
    let rows = numbers(rows)?;
    for width in numbers(widths)? {
        let product = |&rows: &usize| Matmul::new([width, width], 8, rows, 16);
        let mut products = rows.iter().map(product).collect::<Result<Vec<_>, _>>()?;
        let mut times = vec![Vec::new(); rows.len()];
        for _ in 0..ROUNDS {
            for (product, times) in products.iter_mut().zip(&mut times) {
                product.int8();
                let (start, mut calls) = (Instant::now(), 0);
                while start.elapsed().as_nanos() < ROUND {
                    product.int8();
                    calls += 1;
                }
                times.push(start.elapsed().as_secs_f64() * 1e6 / f64::from(calls));
            }
        }
        for (rows, mut times) in rows.iter().zip(times) {
            times.sort_by(f64::total_cmp);
            let (least, median) = (times[0], times[ROUNDS / 2]);
            println!(
                r#"{{"width": {width}, "rows": {rows}, "min_us": {least:.3}, "median_us": {median:.3}}}"#
            );
        }
    }
    Ok(())
}
