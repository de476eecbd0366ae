//! Cases 51 to 53: what a process wrote is kept, whole and in its place.

use std::pin::pin;

use futures_util::future::{Either, select};
use wavetank_fixtures::program::{SIGUSR1, filling};
use wavetank_fixtures::{Output, Program, Step, TestImage};
use wavetank_port::{
    Capability, ContainerId, ExitCode, LogChunk, LogOptions, LogStream, OutputStream, Signal,
    Support, WallTime,
};

use crate::bed::{Bed, CALL, bounded, ended_with};
use crate::check::{Answer, Check, broken, holds, same};

/// Longer than any buffer that a line passes on its way.
const LONG_LINE: u64 = 200_000;

/// 51
pub async fn exact(bed: &Bed<'_>) -> Check {
    let steps = [
        Step::Write(Output::Stdout, "out\n\n \ttwo".to_owned()),
        Step::Write(Output::Stderr, "err, no newline".to_owned()),
        Step::Write(Output::Stdout, " and on: \u{fc}\u{20ac}\r".to_owned()),
    ];
    let spec = bed.tool("split", &Program::of(steps));
    ended_with("it", bed.run(&spec).await?, 0)?;
    let out = "out\n\n \ttwo and on: \u{fc}\u{20ac}\r";
    written(bed, &spec.id, OutputStream::Stdout, out.as_bytes()).await?;
    written(bed, &spec.id, OutputStream::Stderr, b"err, no newline").await?;
    let fill = |output, line_bytes| Step::Fill {
        output,
        bytes: LONG_LINE,
        line_bytes,
    };
    let steps = [fill(Output::Stdout, 0), fill(Output::Stderr, 80)];
    let spec = bed.tool("long", &Program::of(steps));
    ended_with("it", bed.run(&spec).await?, 0)?;
    let line: Vec<u8> = filling(LONG_LINE, 0).collect();
    written(bed, &spec.id, OutputStream::Stdout, &line).await?;
    let lines: Vec<u8> = filling(LONG_LINE, 80).collect();
    written(bed, &spec.id, OutputStream::Stderr, &lines).await
}

/// 52
pub async fn parts(bed: &Bed<'_>) -> Check {
    let line = |text: &str| Step::Write(Output::Stdout, format!("{text}\n"));
    let steps = [
        line("one"),
        Step::AwaitSignal(SIGUSR1),
        line("two"),
        line("three"),
        line("four"),
    ];
    let spec = bed.tool("a", &Program::of(steps));
    bed.start(&spec).await?;
    let (followed, between) = followed_while_it_writes(bed, &spec.id).await?;
    same("what was followed", text(&followed), WHOLE.to_owned())?;
    // A log that is followed ends with the process.
    let status = bed.inspect(&spec.id).await?.exit.map(|exit| exit.code);
    same("once the log is over", status, Some(ExitCode::Known(0)))?;
    for _ in 0..2 {
        written(bed, &spec.id, OutputStream::Stdout, WHOLE.as_bytes()).await?;
    }
    let log = follow(bed, &spec.id).await?;
    let followed = bounded(ENDS, to_its_end(log)).await?;
    same("followed after the end", text(&followed), WHOLE.to_owned())?;
    for (lines, expected) in [
        (0, ""),
        (1, "four\n"),
        (3, "two\nthree\nfour\n"),
        (9, WHOLE),
    ] {
        let options = LogOptions {
            tail_lines: Some(lines),
            ..LogOptions::default()
        };
        let tail = bed
            .log_where(&spec.id, OutputStream::Stdout, &options)
            .await?;
        let tail = String::from_utf8_lossy(&tail).into_owned();
        same(
            &format!("the last {lines} lines"),
            tail,
            expected.to_owned(),
        )?;
    }
    if bed.support(Capability::LogTimes) == Support::Missing {
        return Ok(());
    }
    let cut = async |since, until| {
        let options = LogOptions {
            since,
            until,
            ..LogOptions::default()
        };
        let part = bed
            .log_where(&spec.id, OutputStream::Stdout, &options)
            .await?;
        Ok::<_, crate::Unmet>(String::from_utf8_lossy(&part).into_owned())
    };
    same(
        "since",
        cut(Some(between), None).await?,
        "two\nthree\nfour\n".to_owned(),
    )?;
    same("until", cut(None, Some(between)).await?, "one\n".to_owned())
}

const WHOLE: &str = "one\ntwo\nthree\nfour\n";
const ENDS: &str = "a followed log ends with its process";

/// What comes while the rest is written, and a time before that.
async fn followed_while_it_writes(
    bed: &Bed<'_>,
    id: &ContainerId,
) -> Check<(Vec<LogChunk>, WallTime)> {
    let log = follow(bed, id).await?;
    let (followed, going_on) = (pin!(to_its_end(log)), pin!(go_on(bed, id)));
    // What goes on beside it has deadlines of its own; the log has to end once that is done.
    match select(followed, going_on).await {
        Either::Left((followed, going_on)) => Ok((followed?, going_on.await?)),
        Either::Right((between, followed)) => {
            let between = between?;
            Ok((bounded(ENDS, followed).await?, between))
        }
    }
}

/// Waits for the first line, takes the time by the clock of the machine, and lets the rest come.
async fn go_on(bed: &Bed<'_>, id: &ContainerId) -> Check<WallTime> {
    bed.until("the first line is in the log", || async {
        Ok(bed.log(id, OutputStream::Stdout).await? == b"one\n")
    })
    .await?;
    let marker = bed.run(&bed.tool("marker", &Program::exit(0))).await?;
    let signal = Signal::Other(SIGUSR1);
    bed.runtime.kill(id, signal, CALL).await.works("kill")?;
    match marker.exited_at {
        Some(at) => Ok(at),
        None => broken("an exit without its time"),
    }
}

/// 53
pub async fn flood(bed: &Bed<'_>) -> Check {
    let quiet = bed
        .start_ready(&bed.spec("quiet", TestImage::Normal))
        .await?;
    let spec = bed.spec("a", TestImage::FloodsLogs);
    bed.start_ready(&spec).await?;
    bed.until("a megabyte is in the log", || async {
        let log = bed.log(&spec.id, OutputStream::Stdout).await?;
        Ok(log.len() > 1_000_000)
    })
    .await?;
    let stop = bed.runtime.stop(&spec.id, CALL, CALL * 2).await;
    match stop.works("stop of what floods its log")? {
        Some(exit) => ended_with("what floods its log", exit, 0)?,
        None => return broken("stop of a running container knew no exit"),
    }
    let log = bed.log(&spec.id, OutputStream::Stdout).await?;
    let lines = log.split_inclusive(|byte| *byte == b'\n');
    // Ready, then lines of one length: none is torn or mixed with another.
    let torn = lines.skip(1).filter(|line| line.len() != 100).count();
    holds(torn <= 1, || format!("{torn} lines are torn"))?;
    bed.still_runs(&quiet).await?;
    bed.remove(&spec.id).await
}

/// The whole of one output, exactly.
async fn written(bed: &Bed<'_>, id: &ContainerId, stream: OutputStream, expected: &[u8]) -> Check {
    let found = bed.log(id, stream).await?;
    holds(found == expected, || {
        let at = found
            .iter()
            .zip(expected)
            .take_while(|(a, b)| a == b)
            .count();
        format!(
            "{stream:?} of {id}: {} bytes instead of {}, other from byte {at} on",
            found.len(),
            expected.len()
        )
    })
}

async fn follow(bed: &Bed<'_>, id: &ContainerId) -> Check<Box<dyn LogStream>> {
    let options = LogOptions {
        follow: true,
        ..LogOptions::default()
    };
    bed.runtime.logs(id, &options, CALL).await.works("logs")
}

/// All that comes until the log ends.
async fn to_its_end(mut log: Box<dyn LogStream>) -> Check<Vec<LogChunk>> {
    let mut chunks = Vec::new();
    while let Some(chunk) = log.next().await.works("following a log")? {
        chunks.push(chunk);
    }
    Ok(chunks)
}

fn text(chunks: &[LogChunk]) -> String {
    let out = chunks
        .iter()
        .filter(|chunk| chunk.stream == OutputStream::Stdout);
    let bytes: Vec<u8> = out.flat_map(|chunk| chunk.bytes.clone()).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}
