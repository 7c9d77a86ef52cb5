//! An emulated accelerator, as MLPerf Storage has it: a step takes a fixed time, and the next one needs its samples to be there.

use std::time::{Duration, Instant};

use crate::bench::dataset::wait_until;

/// Samples of MLPerf Storage's resnet50: mean bytes of one (`record_length` in its workload files, v1.0).
pub const SAMPLE_BYTES: usize = 114_660;
/// Seconds that an NVIDIA H100 computes on a sample there: 0.224 s for a batch of 400.
pub const H100_SECONDS: f64 = 0.224 / 400.0;
/// An A100: 0.435 s for a batch of 400.
pub const A100_SECONDS: f64 = 0.435 / 400.0;

/// What an accelerator does.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Samples that it is given in an epoch.
    pub samples: usize,
    /// Epochs.
    pub epochs: usize,
    /// Samples of a step.
    pub batch: usize,
    /// What one takes.
    pub time_of_sample: Duration,
}

/// How long an epoch took, and what of it was spent computing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Use {
    /// Computing.
    pub compute: Duration,
    /// From the end of the epoch before, or the start, to the end of the last step.
    pub total: Duration,
}

/// Runs one; `next` waits for a sample. What each epoch took.
///
/// # Errors
/// What `next` fails with.
pub fn run(plan: &Plan, mut next: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<Vec<Use>> {
    let mut epochs = Vec::with_capacity(plan.epochs);
    for _ in 0..plan.epochs {
        let (began, mut compute, mut left) = (Instant::now(), Duration::ZERO, plan.samples);
        while left > 0 {
            let batch = plan.batch.clamp(1, left);
            for _ in 0..batch {
                next()?;
            }
            left -= batch;
            let step = Instant::now();
            wait_until(step + plan.time_of_sample.mul_f64(batch as f64));
            compute += step.elapsed();
        }
        epochs.push(Use { compute, total: began.elapsed() });
    }
    Ok(epochs)
}

/// Compute over total in each epoch, of all accelerators together.
#[must_use]
pub fn utilisation(accelerators: &[Vec<Use>]) -> Vec<f64> {
    let epochs = accelerators.iter().map(Vec::len).min().unwrap_or_default();
    let of = |epoch: usize| {
        let uses = || accelerators.iter().filter_map(|uses| uses.get(epoch));
        let compute: Duration = uses().map(|found| found.compute).sum();
        let total: Duration = uses().map(|found| found.total).sum();
        compute.as_secs_f64() / total.as_secs_f64().max(f64::MIN_POSITIVE)
    };
    (0..epochs).map(of).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Plan, Use, run, utilisation};

    #[test]
    fn an_accelerator_computes_on_each_sample_once() {
        let time_of_sample = Duration::from_millis(1);
        let plan = Plan { samples: 10, epochs: 3, batch: 4, time_of_sample };
        let mut given = 0;
        let uses = run(&plan, || {
            given += 1;
            Ok(())
        });
        let uses = uses.unwrap();
        assert_eq!((given, uses.len()), (30, 3));
        for one in &uses {
            assert!(
                one.compute >= Duration::from_millis(10) && one.total >= one.compute,
                "{one:?}"
            );
        }
        run(&plan, || anyhow::bail!("no sample")).unwrap_err();
    }

    #[test]
    fn utilisation_is_of_all_together() {
        let one = |compute, total| Use {
            compute: Duration::from_secs(compute),
            total: Duration::from_secs(total),
        };
        let found = utilisation(&[vec![one(1, 2), one(9, 10)], vec![one(2, 2), one(8, 10)]]);
        assert_eq!(found, [0.75, 0.85]);
        assert!(utilisation(&[]).is_empty());
    }
}
