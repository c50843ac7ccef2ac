//! Where the figures are kept: atomics for counters, count, sum, minimum and maximum for summaries.

use metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder,
    SharedString, Unit,
};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The figures of one server. Names are sorted, so that `mntr` prints them in a fixed order.
#[derive(Default)]
pub struct Store {
    counters: Mutex<BTreeMap<String, Arc<Count>>>,
    summaries: Mutex<BTreeMap<String, Arc<Summary>>>,
}

#[derive(Debug, Default)]
struct Count(AtomicU64);

impl CounterFn for Count {
    fn increment(&self, value: u64) {
        self.0.fetch_add(value, Ordering::Relaxed);
    }

    fn absolute(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }
}

impl GaugeFn for Count {
    fn increment(&self, value: f64) {
        self.0.fetch_add(value as u64, Ordering::Relaxed);
    }

    fn decrement(&self, value: f64) {
        self.0.fetch_sub(value as u64, Ordering::Relaxed);
    }

    fn set(&self, value: f64) {
        self.0.store(value as u64, Ordering::Relaxed);
    }
}

/// `AvgMinMaxCounter`, and `AvgMinMaxPercentileCounter` with a histogram.
#[derive(Debug)]
pub struct Summary {
    values: Mutex<Values>,
}

#[derive(Debug, Clone)]
struct Values {
    count: u64,
    sum: f64,
    min: f64,
    max: f64,
    percentiles: Option<hdrhistogram::Histogram<u64>>,
}

impl Summary {
    fn new(with_percentiles: bool) -> Self {
        let histogram = || hdrhistogram::Histogram::new(2).expect("2 digits are possible");
        let percentiles = with_percentiles.then(histogram);
        Self { values: Mutex::new(Values { count: 0, sum: 0.0, min: f64::MAX, max: 0.0, percentiles }) }
    }

    pub(super) fn lines(&self, name: &str, out: &mut String) {
        let values = self.values.lock().clone();
        let avg = if values.count == 0 { 0.0 } else { values.sum / values.count as f64 };
        let avg = (avg * 10_000.0).round() / 10_000.0;
        let min = if values.count == 0 { 0 } else { values.min as u64 };
        let _ = writeln!(
            out,
            "zk_avg_{name}\t{avg:?}\nzk_min_{name}\t{min}\nzk_max_{name}\t{}",
            values.max as u64
        );
        let _ = writeln!(out, "zk_cnt_{name}\t{}\nzk_sum_{name}\t{}", values.count, values.sum as u64);
        if let Some(histogram) = values.percentiles {
            for (label, quantile) in [("p50", 0.5), ("p95", 0.95), ("p99", 0.99), ("p999", 0.999)] {
                let _ = writeln!(out, "zk_{label}_{name}\t{}", histogram.value_at_quantile(quantile));
            }
        }
    }
}

impl HistogramFn for Summary {
    fn record(&self, value: f64) {
        self.record_many(value, 1);
    }

    fn record_many(&self, value: f64, count: usize) {
        let mut values = self.values.lock();
        values.count += count as u64;
        values.sum += value * count as f64;
        values.min = values.min.min(value);
        values.max = values.max.max(value);
        if let Some(histogram) = &mut values.percentiles {
            histogram.saturating_record_n(value as u64, count as u64);
        }
    }
}

impl Store {
    /// Registers a summary that also keeps percentiles.
    pub(super) fn with_percentiles(&self, name: &str) {
        self.summaries.lock().insert(name.into(), Arc::new(Summary::new(true)));
    }

    pub(super) fn counter(&self, name: &str) -> u64 {
        self.counters.lock().get(name).map_or(0, |count| count.0.load(Ordering::Relaxed))
    }

    pub(super) fn reset_counter(&self, name: &str) {
        if let Some(count) = self.counters.lock().get(name) {
            count.absolute(0);
        }
    }

    /// Count, sum, minimum, maximum.
    pub(super) fn summary(&self, name: &str) -> (u64, f64, f64, f64) {
        let summaries = self.summaries.lock();
        let Some(summary) = summaries.get(name) else { return (0, 0.0, 0.0, 0.0) };
        let values = summary.values.lock();
        (values.count, values.sum, if values.count == 0 { 0.0 } else { values.min }, values.max)
    }

    pub(super) fn reset_summary(&self, name: &str) {
        if let Some(summary) = self.summaries.lock().get(name) {
            let mut values = summary.values.lock();
            let percentiles = values.percentiles.is_some();
            *values = Summary::new(percentiles).values.into_inner();
        }
    }

    pub(super) fn each_counter(&self, mut f: impl FnMut(&str, u64)) {
        for (name, count) in self.counters.lock().iter() {
            f(name, count.0.load(Ordering::Relaxed));
        }
    }

    pub(super) fn each_summary(&self, mut f: impl FnMut(&str, &Summary)) {
        for (name, summary) in self.summaries.lock().iter() {
            f(name, summary);
        }
    }
}

impl Recorder for Store {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.counters.lock().entry(key.name().into()).or_default().clone())
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.counters.lock().entry(key.name().into()).or_default().clone())
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        let mut summaries = self.summaries.lock();
        Histogram::from_arc(
            summaries.entry(key.name().into()).or_insert_with(|| Arc::new(Summary::new(false))).clone(),
        )
    }
}
