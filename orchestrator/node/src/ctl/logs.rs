//! `ctl logs`: what a task, or all tasks of a service, have written. One task's output is passed
//! on as it is; of several, line by line, each behind the name of its task.

use data_encoding::BASE64;
use serde_json::Value;
use tokio::sync::mpsc;
use wavetank_model::{InstanceId, TaskId};

use super::client::{self, Client, Lines};
use super::{CtlError, Session};
use crate::api::views::{LogLine, Service, Task};

/// A line that is longer comes in parts when several tasks write at once, in bytes.
const LINE_BYTES_MAX: usize = 64 << 10;
/// Lines that wait to be printed.
const WAITING_MAX: usize = 16;
/// States from which a task does not come back: its container is removed, and the log with it.
const ENDED: [&str; 5] = ["complete", "failed", "shutdown", "rejected", "lost"];

/// Which logs, and what of them.
pub(super) struct Wanted {
    pub what: String,
    pub tail: Option<u32>,
    pub follow: bool,
}

impl Wanted {
    fn path(&self, task: &str) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        if let Some(tail) = self.tail {
            query.append_pair("tail", &tail.to_string());
        }
        if self.follow {
            query.append_pair("follow", "true");
        }
        let task = client::segment(task);
        format!("/v1/tasks/{task}/logs?{}", query.finish())
    }
}

impl Session<'_> {
    pub(super) async fn logs(&mut self, wanted: &Wanted) -> Result<(), CtlError> {
        let tasks = tasks(&self.client, &wanted.what).await?;
        match &tasks[..] {
            [task] => self.log_of(task, wanted).await,
            tasks => self.logs_of(tasks, wanted).await,
        }
    }

    async fn log_of(&mut self, task: &str, wanted: &Wanted) -> Result<(), CtlError> {
        let mut lines = self.client.lines(&wanted.path(task)).await?;
        while let Some(line) = next(&mut lines).await? {
            match self.json {
                true => writeln!(self.out, "{}", with_task(&line, task))?,
                false => self.out.write_all(&bytes(&line))?,
            }
            self.out.flush()?;
        }
        Ok(())
    }

    /// What goes wrong with one task keeps nobody from reading the others, and is said at the end.
    async fn logs_of(&mut self, tasks: &[String], wanted: &Wanted) -> Result<(), CtlError> {
        let (sender, mut received) = mpsc::channel(WAITING_MAX);
        let mut reading = Vec::new();
        for task in tasks {
            let (client, path) = (self.client.clone(), wanted.path(task));
            reading.push(read(client, path, task.clone(), self.json, sender.clone()));
        }
        drop(sender);
        let print = async {
            while let Some(text) = received.recv().await {
                self.out.write_all(&text)?;
                self.out.flush()?;
            }
            Ok::<_, CtlError>(())
        };
        let (printed, ends) = tokio::join!(print, futures_util::future::join_all(reading));
        printed?;
        let failures: Vec<CtlError> = ends.into_iter().filter_map(Result::err).collect();
        let are_refused = failures.iter().all(|it| matches!(it, CtlError::Refused(_)));
        // Several tasks may have failed for one reason.
        let mut reasons: Vec<String> = failures.iter().map(ToString::to_string).collect();
        reasons.dedup();
        let reasons = reasons.join("; ");
        match (failures.is_empty(), are_refused) {
            (true, _) => Ok(()),
            (false, true) => Err(CtlError::Refused(reasons)),
            (false, false) => Err(CtlError::Unreachable(reasons)),
        }
    }
}

/// The tasks that are meant: one, by its id or that of an attempt, or those of a service that have
/// begun and not ended.
async fn tasks(client: &Client, what: &str) -> Result<Vec<String>, CtlError> {
    if what.parse::<TaskId>().is_ok() || what.parse::<InstanceId>().is_ok() {
        return Ok(vec![what.to_owned()]);
    }
    let path = format!("/v1/services/{}", client::segment(what));
    let service: Service = client.get(&path).await?;
    let has_log = |task: &&Task| task.attempt > 0 && !ENDED.contains(&&*task.state);
    let tasks = service.tasks.iter().filter(has_log);
    let tasks: Vec<String> = tasks.map(|task| task.task.clone()).collect();
    match tasks.is_empty() {
        true => Err(CtlError::Refused(format!(
            "no task of {what} runs: nothing to read"
        ))),
        false => Ok(tasks),
    }
}

/// Reads one log to its end, and hands on what is to be printed.
async fn read(
    client: Client,
    path: String,
    task: String,
    json: bool,
    out: mpsc::Sender<Vec<u8>>,
) -> Result<(), CtlError> {
    let mut outputs = [Vec::new(), Vec::new()];
    let mut lines = client.lines(&path).await?;
    while let Some(line) = next(&mut lines).await? {
        let text = match json {
            true => format!("{}\n", with_task(&line, &task)).into_bytes(),
            false => {
                let is_stderr =
                    matches!(&line, LogLine::Written { stream, .. } if stream == "stderr");
                let output = &mut outputs[usize::from(is_stderr)];
                output.extend(bytes(&line));
                whole_lines(output, &task)
            }
        };
        // Whoever prints has met an error and says so.
        if out.send(text).await.is_err() {
            return Ok(());
        }
    }
    for output in outputs.iter_mut().filter(|output| !output.is_empty()) {
        output.push(b'\n');
        let _ = out.send(whole_lines(output, &task)).await;
    }
    Ok(())
}

/// The next line that says something; the log's own complaint is an error.
async fn next(lines: &mut Lines) -> Result<Option<LogLine>, CtlError> {
    let Some(line) = lines.next().await? else {
        return Ok(None);
    };
    match serde_json::from_str(&line) {
        Ok(LogLine::Failed { error }) => Err(CtlError::Unreachable(format!(
            "the log breaks off: {error}"
        ))),
        Ok(line) => Ok(Some(line)),
        Err(error) => Err(CtlError::Unreachable(format!(
            "the manager's answer cannot be read: {error}"
        ))),
    }
}

fn bytes(line: &LogLine) -> Vec<u8> {
    match line {
        LogLine::Written {
            text: Some(text), ..
        } => text.clone().into_bytes(),
        LogLine::Written {
            base64: Some(text), ..
        } => BASE64.decode(text.as_bytes()).unwrap_or_default(),
        LogLine::Written { .. } | LogLine::Failed { .. } => Vec::new(),
    }
}

fn with_task(line: &LogLine, task: &str) -> Value {
    let mut value = serde_json::to_value(line).unwrap_or_default();
    if let Value::Object(fields) = &mut value {
        fields.insert("task".to_owned(), task.into());
    }
    value
}

/// Takes the lines that are complete, or too long to wait for, each behind its task's name.
fn whole_lines(output: &mut Vec<u8>, task: &str) -> Vec<u8> {
    let complete = output.iter().rposition(|byte| *byte == b'\n');
    let end = match complete {
        Some(last) => last + 1,
        None if output.len() > LINE_BYTES_MAX => {
            output.push(b'\n');
            output.len()
        }
        None => 0,
    };
    let mut text = Vec::new();
    for line in output[..end].split_inclusive(|byte| *byte == b'\n') {
        text.extend_from_slice(task.as_bytes());
        text.extend_from_slice(b" | ");
        text.extend_from_slice(line);
    }
    output.drain(..end);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_several_tasks_are_told_apart_and_never_mixed() {
        let mut output = b"one\ntw".to_vec();
        assert_eq!(whole_lines(&mut output, "task-1"), b"task-1 | one\n");
        assert_eq!(whole_lines(&mut output, "task-1"), b"");
        output.extend_from_slice(b"o\n");
        assert_eq!(whole_lines(&mut output, "task-1"), b"task-1 | two\n");
        let mut endless = vec![b'x'; LINE_BYTES_MAX + 1];
        assert!(whole_lines(&mut endless, "t").ends_with(b"x\n") && endless.is_empty());
    }

    #[test]
    fn what_is_no_text_is_passed_on_as_it_was() {
        let line = r#"{"stream": "stdout", "base64": "/wA="}"#;
        let line: LogLine = serde_json::from_str(line).unwrap();
        assert_eq!(bytes(&line), [0xff, 0]);
        let said = with_task(&line, "task-3").to_string();
        assert!(said.contains(r#""task":"task-3""#), "{said}");
    }
}
