//! The time that runs take, and the memory.

use std::time::{Duration, Instant};

use super::Roofline;

/// Milliseconds of each run, ascending.
pub struct Times(Vec<f64>);

/// Runs once to warm up, then at least `runs` times and `seconds` long.
pub fn times(
    run: impl Fn() -> centroid::Result<()>,
    runs: usize,
    seconds: f64,
) -> centroid::Result<Times> {
    run()?;
    let (mut times, begin) = (Vec::new(), Instant::now());
    while times.len() < runs || begin.elapsed() < Duration::from_secs_f64(seconds) {
        let start = Instant::now();
        run()?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    Ok(Times(times))
}

/// What linear layers and the forward pass reach, by the medians of `runs` more runs.
pub fn roofline(
    run: impl Fn() -> centroid::Result<()>,
    runs: usize,
    peak_mac_per_s: f64,
) -> centroid::Result<Roofline> {
    let (mut linear, mut forward) = (Vec::new(), Vec::new());
    for _ in 0..runs {
        let start = Instant::now();
        let (products, seconds) = centroid::bench::linear_layers(&run)?;
        forward.push(products / start.elapsed().as_secs_f64());
        linear.push(products / seconds);
    }
    let median = |mut rates: Vec<f64>| {
        rates.sort_by(f64::total_cmp);
        rates[rates.len() / 2]
    };
    Ok(Roofline {
        peak_mac_per_s,
        linear_mac_per_s: median(linear),
        forward_mac_per_s: median(forward),
    })
}

impl Times {
    /// The smallest time that the share `q` of the runs did not exceed.
    pub fn quantile(&self, q: f64) -> f64 {
        let rank = (q * self.0.len() as f64).ceil() as usize;
        self.0[rank.clamp(1, self.0.len()) - 1]
    }

    /// Mean and standard deviation over the runs of what is done a second, where a run does `count`.
    pub fn rate(&self, count: f64) -> (f64, f64) {
        let n = self.0.len() as f64;
        let rates = || self.0.iter().map(|ms| count / (ms / 1e3));
        let mean = rates().sum::<f64>() / n;
        let squares: f64 = rates().map(|rate| (rate - mean).powi(2)).sum();
        let sd = if n > 1.0 {
            (squares / (n - 1.0)).sqrt()
        } else {
            0.0
        };
        (mean, sd)
    }
}

/// Makes the kernel forget the peak so far, where it can; else rows share the peak.
pub fn reset_peak() {
    if cfg!(target_os = "linux") {
        let _ = std::fs::write("/proc/self/clear_refs", "5");
    }
}

/// The most memory resident at a time, in bytes.
pub fn peak() -> Option<u64> {
    if !cfg!(target_os = "linux") {
        return None;
    }
    peak_in(&std::fs::read_to_string("/proc/self/status").ok()?)
}

fn peak_in(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_times_of_runs() {
        let times = Times((1..=100).map(f64::from).collect());
        assert_eq!(
            [0.0, 0.5, 0.99, 1.0].map(|q| times.quantile(q)),
            [1.0, 50.0, 99.0, 100.0]
        );
        assert_eq!(Times(vec![7.0]).quantile(0.99), 7.0);
        assert_eq!(Times(vec![7.0]).rate(7.0), (1000.0, 0.0));
        let (mean, sd) = Times(vec![500.0, 1000.0]).rate(1.0);
        assert_eq!((mean, sd), (1.5, 0.5f64.sqrt()));
    }

    #[test]
    fn the_peak_is_read_from_the_status() {
        assert_eq!(
            peak_in("Name:\tx\nVmHWM:\t    1234 kB\n"),
            Some(1234 * 1024)
        );
        assert_eq!(peak_in("Name:\tx\n"), None);
    }
}
