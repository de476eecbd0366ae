//! What a node's process costs its machine, and what it has sent: from `/proc` and from the node's
//! own metrics.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::header::HOST;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::Node;
use super::processes::stat_field;

/// Fields of `/proc/PID/stat`, counted from 1: processor time in user and in kernel mode.
const USER_TIME: usize = 14;
const KERNEL_TIME: usize = 15;
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// What a node had used at one moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Usage {
    /// The moment.
    pub at: Instant,
    /// Processor time of all its threads since it began.
    pub cpu: Duration,
    /// Memory that is resident.
    pub resident_bytes: u64,
    /// The same, with what several processes share divided among them.
    pub proportional_bytes: u64,
    /// Messages that it has written to connections since it began.
    pub messages_written: u64,
    /// Bytes that it has written to connections since it began, TLS included.
    pub bytes_written: u64,
}

impl Usage {
    /// Of a node that runs.
    pub async fn of(node: &Node) -> anyhow::Result<Self> {
        let name = &node.process.name;
        let metrics = tokio::time::timeout(ANSWER_TIMEOUT, metrics(&node.status)).await;
        let metrics = metrics.with_context(|| format!("{name} does not answer in time"))?;
        let metrics = metrics.with_context(|| format!("cannot ask {name} for its metrics"))?;
        let pid = node.process.pid;
        let read = |file: &str| {
            let path = format!("/proc/{pid}/{file}");
            fs::read_to_string(&path).with_context(|| format!("cannot read {path} of {name}"))
        };
        let (stat, memory) = (read("stat")?, read("smaps_rollup")?);
        Ok(Usage {
            at: Instant::now(),
            cpu: cpu(&stat).with_context(|| format!("the processor time of {name}"))?,
            resident_bytes: memory_of(&memory, "Rss:").context("Rss")?,
            proportional_bytes: memory_of(&memory, "Pss:").context("Pss")?,
            messages_written: counter(&metrics, "wavetank_messages_written_total")?,
            bytes_written: counter(&metrics, "wavetank_bytes_written_total")?,
        })
    }
}

/// A node's metrics, in Prometheus's text format.
async fn metrics(status: &str) -> anyhow::Result<String> {
    let stream = TcpStream::connect(status).await?;
    let connected = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = connected?;
    let request = Request::get("/metrics").header(HOST, status);
    let request = request.body(Empty::<Bytes>::new())?;
    let answered = async {
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = response.into_body().collect().await?;
        anyhow::Ok((status, body.to_bytes()))
    };
    // The connection is driven by whoever polls it, and over when the answer is here.
    let (status, body) = tokio::select! {
        biased;
        answered = answered => answered?,
        ended = connection => bail!("the connection ended: {ended:?}"),
    };
    match status {
        StatusCode::OK => Ok(String::from_utf8(body.to_vec())?),
        refused => bail!("it answers {refused}"),
    }
}

/// The value of a counter without labels of its own.
fn counter(metrics: &str, name: &str) -> anyhow::Result<u64> {
    let value = metrics.lines().find_map(|line| {
        let rest = line.strip_prefix(name)?;
        let value = match rest.strip_prefix('{') {
            Some(labelled) => labelled.split_once('}')?.1,
            None => rest,
        };
        value.trim().parse().ok()
    });
    value.with_context(|| format!("the node does not count {name}"))
}

fn cpu(stat: &str) -> Option<Duration> {
    let user: u64 = stat_field(stat, USER_TIME)?.parse().ok()?;
    let kernel: u64 = stat_field(stat, KERNEL_TIME)?.parse().ok()?;
    let per_second = rustix::param::clock_ticks_per_second();
    let nanos = u128::from(user + kernel) * 1_000_000_000 / u128::from(per_second.max(1));
    Some(Duration::from_nanos(u64::try_from(nanos).ok()?))
}

fn memory_of(rollup: &str, what: &str) -> Option<u64> {
    let line = rollup.lines().find_map(|line| line.strip_prefix(what))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_found_with_and_without_labels() {
        let text = "# TYPE wavetank_a counter\nwavetank_a_total{node=\"agent-1\"} 17\nb_total 4\n";
        assert_eq!(counter(text, "wavetank_a_total").unwrap(), 17);
        assert_eq!(counter(text, "b_total").unwrap(), 4);
        let missing = counter(text, "wavetank_c_total").unwrap_err();
        assert!(missing.to_string().contains("wavetank_c_total"));
    }

    #[test]
    fn processor_time_is_user_and_kernel_time() {
        let stat = "12 (a) b) S 1 12 12 0 -1 4194560 1 0 0 0 150 50 0 0 20 0 1 0 4711 1 1 1";
        let per_second = rustix::param::clock_ticks_per_second();
        let wanted = Duration::from_secs(200) / u32::try_from(per_second).unwrap();
        assert_eq!(cpu(stat), Some(wanted));
        assert_eq!(cpu("12 (a) S"), None);
    }

    #[test]
    fn memory_is_read() {
        let text = "5580-7ffe ---p 00000000 00:00 0 [rollup]\nRss:   2048 kB\nPss:  1024 kB\n";
        assert_eq!(memory_of(text, "Rss:"), Some(2 << 20));
        assert_eq!(memory_of(text, "Pss:"), Some(1 << 20));
        assert_eq!(memory_of(text, "Swap:"), None);
    }
}
