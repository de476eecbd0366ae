//! Reading a container's log.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use wavetank_port::{ContainerId, ErrorClass, LogChunk, LogOptions, LogStream, OutputStream};

use crate::adapter::Shared;
use crate::changes::Changes;
use crate::deadline::{Result, blocking, unknown};
use crate::log_file::LogReader;
use crate::record::{Phase, file};
use crate::view::View;

/// How often a follower looks after a container that writes nothing: its monitor may have died.
const LOOK_AFTER: Duration = Duration::from_secs(1);

/// A log being read.
pub struct Log {
    shared: Arc<Shared>,
    id: ContainerId,
    reader: Option<LogReader>,
    options: LogOptions,
    /// Lines of each output that are left out.
    skip: BTreeMap<OutputStream, usize>,
    changes: Option<Changes>,
}

impl Log {
    /// Opens the log of the container in `view`.
    pub async fn open(shared: Arc<Shared>, view: &View, options: LogOptions) -> Result<Self> {
        let changes = match options.follow {
            true => Some(Changes::of(view.folder.path())?),
            false => None,
        };
        let path = view.folder.join(file::LOG);
        let wanted = options.clone();
        let (reader, skip) = blocking(move || {
            let open = || LogReader::open(&path).map_err(|error| unknown(&error));
            let skip = match (wanted.tail_lines, open()?) {
                (Some(tail), Some(reader)) => lines_before(reader, &wanted, tail)?,
                _ => BTreeMap::new(),
            };
            Ok((open()?, skip))
        })
        .await?;
        Ok(Log {
            shared,
            id: view.record.spec.id.clone(),
            reader,
            options,
            skip,
            changes,
        })
    }

    /// The next chunk that is wanted; `None` where there is none now.
    async fn read(&mut self) -> Result<Option<LogChunk>> {
        let Some(mut reader) = self.reader.take() else {
            return self.reopen().await;
        };
        let options = self.options.clone();
        let (reader, chunk) = blocking(move || {
            let chunk = next_wanted(&mut reader, &options)?;
            Ok((reader, chunk))
        })
        .await?;
        self.reader = Some(reader);
        Ok(chunk)
    }

    /// A container that has not been created to its end has no log yet.
    async fn reopen(&mut self) -> Result<Option<LogChunk>> {
        let path = self.shared.folder(&self.id).join(file::LOG);
        let open = move || LogReader::open(&path).map_err(|error| unknown(&error));
        self.reader = blocking(open).await?;
        Ok(None)
    }

    /// True once nothing will be written any more.
    async fn is_complete(&self) -> Result<bool> {
        match self.shared.view(&self.id).await {
            Ok(view) => Ok(matches!(view.phase, Phase::Exited(_) | Phase::Refused(_))),
            Err(error) if error.class == ErrorClass::NotFound => Ok(true),
            Err(error) => Err(error),
        }
    }
}

#[async_trait]
impl LogStream for Log {
    async fn next(&mut self) -> Result<Option<LogChunk>> {
        let mut complete = self.changes.is_none();
        loop {
            while let Some(chunk) = self.read().await? {
                if let Some(rest) = skip_lines(&mut self.skip, chunk) {
                    return Ok(Some(rest));
                }
            }
            // The log was complete before it was read to its end.
            if complete {
                return Ok(None);
            }
            complete = self.is_complete().await?;
            if let Some(changes) = self.changes.as_ref().filter(|_| !complete) {
                let _ = tokio::time::timeout(LOOK_AFTER, changes.next()).await;
            }
        }
    }
}

fn next_wanted(reader: &mut LogReader, options: &LogOptions) -> Result<Option<LogChunk>> {
    loop {
        let chunk = reader.next_chunk().map_err(|error| unknown(&error))?;
        let Some(chunk) = chunk else {
            return Ok(None);
        };
        let early = options.since.is_some_and(|since| chunk.at < Some(since));
        let late = options.until.is_some_and(|until| chunk.at >= Some(until));
        if !early && !late {
            return Ok(Some(chunk));
        }
    }
}

/// How many lines of each output come before its last `tail`.
fn lines_before(
    mut reader: LogReader,
    options: &LogOptions,
    tail: usize,
) -> Result<BTreeMap<OutputStream, usize>> {
    let mut lines: BTreeMap<OutputStream, (usize, bool)> = BTreeMap::new();
    while let Some(chunk) = next_wanted(&mut reader, options)? {
        let (count, open) = lines.entry(chunk.stream).or_default();
        *count += chunk.bytes.iter().filter(|byte| **byte == b'\n').count();
        *open = chunk.bytes.last().is_some_and(|byte| *byte != b'\n');
    }
    let before = |(count, open): (usize, bool)| (count + usize::from(open)).saturating_sub(tail);
    Ok(lines
        .into_iter()
        .map(|(stream, lines)| (stream, before(lines)))
        .collect())
}

/// The chunk without the lines that are left out; `None` if nothing of it remains.
fn skip_lines(skip: &mut BTreeMap<OutputStream, usize>, mut chunk: LogChunk) -> Option<LogChunk> {
    let left = skip.entry(chunk.stream).or_default();
    while *left > 0 {
        let end = chunk.bytes.iter().position(|byte| *byte == b'\n')?;
        chunk.bytes.drain(..=end);
        *left -= 1;
    }
    (!chunk.bytes.is_empty()).then_some(chunk)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use wavetank_port::{LogChunk, LogOptions, OutputStream, WallTime};

    use super::{lines_before, next_wanted, skip_lines};
    use crate::log_file::{LogReader, LogWriter};

    fn read(chunks: &[(u64, &str)], options: &LogOptions) -> String {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("log");
        let mut writer = LogWriter::open(&path).expect("open");
        for (at, text) in chunks {
            let bytes = text.as_bytes();
            writer
                .write(OutputStream::Stdout, WallTime(*at), bytes)
                .expect("write");
        }
        let open = || LogReader::open(&path).expect("open").expect("there");
        let mut skip = match options.tail_lines {
            Some(tail) => lines_before(open(), options, tail).expect("count"),
            None => BTreeMap::new(),
        };
        let mut reader = open();
        let mut found = Vec::new();
        while let Some(chunk) = next_wanted(&mut reader, options).expect("read") {
            found.extend(
                skip_lines(&mut skip, chunk)
                    .into_iter()
                    .flat_map(|it: LogChunk| it.bytes),
            );
        }
        String::from_utf8(found).expect("text")
    }

    #[test]
    fn the_last_lines_are_counted_over_chunks() {
        let chunks = [(1, "a\nb"), (2, "b\nc\n"), (3, "d")];
        let tail = |lines| LogOptions {
            tail_lines: Some(lines),
            ..LogOptions::default()
        };
        assert_eq!(read(&chunks, &tail(0)), "");
        assert_eq!(read(&chunks, &tail(1)), "d");
        assert_eq!(read(&chunks, &tail(2)), "c\nd");
        assert_eq!(read(&chunks, &tail(3)), "bb\nc\nd");
        assert_eq!(read(&chunks, &tail(9)), "a\nbb\nc\nd");
    }

    #[test]
    fn times_are_from_since_to_before_until() {
        let chunks = [(1, "a"), (2, "b"), (3, "c")];
        let options = LogOptions {
            since: Some(WallTime(2)),
            until: Some(WallTime(3)),
            ..LogOptions::default()
        };
        assert_eq!(read(&chunks, &options), "b");
    }
}
