//! The sinks' figures for Prometheus, read at the moment when they are requested.

use std::fmt;
use std::sync::Weak;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::memory::Memory;
use crate::progress::{Figures, SinkState, SinkStatus, VerificationSummary};
use crate::sinks::Inner;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct SinkLabel {
    sink: String,
}

/// Looks at the sinks of a node.
pub(crate) struct SinkCollector(pub(crate) Weak<Inner>);

impl fmt::Debug for SinkCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SinkCollector")
    }
}

struct Line {
    label: SinkLabel,
    status: SinkStatus,
    applied_records: u64,
    errors: u64,
}

impl Line {
    const fn verified(&self) -> Option<&VerificationSummary> {
        self.status.last_verification.as_ref()
    }
}

impl Collector for SinkCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let Some(inner) = self.0.upgrade() else {
            return Ok(());
        };
        let lines = lines(&inner);
        if lines.is_empty() {
            return Ok(());
        }
        encode_memory(&mut encoder, &inner.memory)?;
        let mut family = |name: &str, help: &str, figure: &dyn Fn(&Line) -> Option<Figure>| {
            family(&mut encoder, &lines, name, help, figure)
        };
        family(
            "sink_position",
            "The store shows everything below this position",
            &|line| line.status.position.map(|p| Figure::Whole(p.get())),
        )?;
        family(
            "sink_lag_records",
            "Records that the store has still to take",
            &|line| line.status.lag_records.map(Figure::Whole),
        )?;
        family(
            "sink_lag_seconds",
            "For how long the oldest of them has been waiting",
            &|line| line.status.lag_seconds.map(Figure::Gauge),
        )?;
        family(
            "sink_running",
            "1 while the sink follows the log",
            &|line| {
                let running = line.status.state == SinkState::Running;
                Some(Figure::Whole(u64::from(running)))
            },
        )?;
        family(
            "sink_applied_records",
            "Records of the log that the sink has passed",
            &|line| Some(Figure::Counter(line.applied_records)),
        )?;
        family("sink_errors", "Errors of the sink", &|line| {
            Some(Figure::Counter(line.errors))
        })?;
        family(
            "sink_parked_keys",
            "Keys that are parked because the store refused a record of theirs",
            &|line| Some(Figure::Whole(line.status.parked)),
        )?;
        family(
            "sink_held_log_bytes",
            "Bytes of log, as stored, behind the sink",
            &|line| Some(Figure::Whole(line.status.held_log_bytes)),
        )?;
        family(
            "sink_left_behind",
            "1 while the log behind the sink is over its limit and no longer kept for it",
            &|line| Some(Figure::Whole(u64::from(line.status.left_behind))),
        )?;
        encode_verification(&mut family)
    }
}

/// Encodes one figure of all sinks: its name, its help, and how it is read.
type EncodeFamily<'f> =
    dyn FnMut(&str, &str, &dyn Fn(&Line) -> Option<Figure>) -> Result<(), fmt::Error> + 'f;

/// The figures of the last comparison of each sink.
fn encode_verification(family: &mut EncodeFamily<'_>) -> Result<(), fmt::Error> {
    family(
        "sink_verified_position",
        "Where the store was last compared with the log",
        &|line| line.verified().map(|v| Figure::Whole(v.position.get())),
    )?;
    family(
        "sink_differing_rows",
        "Rows that differed in the last comparison",
        &|line| line.verified().map(|v| Figure::Whole(v.differences_total)),
    )?;
    family(
        "sink_last_verify_timestamp_seconds",
        "When the last comparison ended, in seconds since 1970",
        &|line| line.verified().map(|v| Figure::Gauge(v.at_ms as f64 / 1e3)),
    )?;
    family(
        "sink_last_verify_seconds",
        "How long the last comparison took",
        &|line| {
            line.verified()
                .map(|v| Figure::Gauge(v.took_ms as f64 / 1e3))
        },
    )
}

fn lines(inner: &Inner) -> Vec<Line> {
    let line = |(status, figures): (SinkStatus, Figures)| Line {
        label: SinkLabel {
            sink: status.name.clone(),
        },
        status,
        applied_records: figures.applied_records,
        errors: figures.errors,
    };
    inner.statuses().into_iter().map(line).collect()
}

fn encode_memory(encoder: &mut DescriptorEncoder<'_>, memory: &Memory) -> Result<(), fmt::Error> {
    for (name, help, bytes) in [
        (
            "sinks_memory_bytes",
            "What all sinks together may hold of the log, unpacked",
            memory.all_bytes(),
        ),
        (
            "sinks_memory_held_bytes",
            "What they hold of it now: batches that are not in their stores yet",
            memory.held_bytes(),
        ),
    ] {
        let gauge = ConstGauge::new(bytes.cast_signed());
        let line = encoder.encode_descriptor(name, help, None, gauge.metric_type())?;
        gauge.encode(line)?;
    }
    Ok(())
}

enum Figure {
    Gauge(f64),
    Whole(u64),
    Counter(u64),
}

fn family(
    encoder: &mut DescriptorEncoder<'_>,
    lines: &[Line],
    name: &str,
    help: &str,
    figure: &dyn Fn(&Line) -> Option<Figure>,
) -> Result<(), fmt::Error> {
    let found: Vec<(&SinkLabel, Figure)> = lines
        .iter()
        .filter_map(|line| figure(line).map(|figure| (&line.label, figure)))
        .collect();
    let Some((_, first)) = found.first() else {
        return Ok(());
    };
    let kind = match first {
        Figure::Gauge(_) | Figure::Whole(_) => ConstGauge::new(0.0).metric_type(),
        Figure::Counter(_) => ConstCounter::new(0u64).metric_type(),
    };
    let mut metrics = encoder.encode_descriptor(name, help, None, kind)?;
    for (label, figure) in &found {
        let line = metrics.encode_family(*label)?;
        match figure {
            Figure::Gauge(number) => ConstGauge::new(*number).encode(line)?,
            Figure::Whole(number) => ConstGauge::new(number.cast_signed()).encode(line)?,
            Figure::Counter(number) => ConstCounter::new(*number).encode(line)?,
        }
    }
    Ok(())
}
