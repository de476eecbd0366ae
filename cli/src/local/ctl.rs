//! A cluster, asked through `ctl` as a user would.

use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use serde_json::Value;
use tokio::process::Command;

use super::{node, operator};

const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Asks one cluster.
#[derive(Clone, Debug)]
pub struct Ctl {
    operator: PathBuf,
}

impl Ctl {
    /// Asks the cluster of this folder.
    pub fn new(dir: &Path) -> Self {
        Ctl {
            operator: operator(dir),
        }
    }

    /// One command; the JSON that it prints.
    pub async fn ask(&self, arguments: &[&str]) -> anyhow::Result<Value> {
        let mut command = Command::from(node()?);
        command
            .args(["ctl", "--json", "--operator"])
            .arg(&self.operator);
        let output = succeed(command.args(arguments)).await?;
        serde_json::from_slice(&output.stdout).context("the answer is no JSON")
    }

    /// A token for one more node.
    pub async fn token(&self, role: &str) -> anyhow::Result<String> {
        let token = self.ask(&["token", role]).await?;
        let token = token["token"].as_str();
        Ok(token.context("the cluster gave no token")?.to_owned())
    }

    /// Asks until the answer is good, for so long.
    pub async fn wait(
        &self,
        what: &str,
        within: Duration,
        arguments: &[&str],
        good: impl Fn(&Value) -> bool,
    ) -> anyhow::Result<()> {
        let began = Instant::now();
        loop {
            let answer = self.ask(arguments).await;
            if answer.as_ref().is_ok_and(&good) {
                return Ok(());
            }
            if began.elapsed() > within {
                let seen = match answer {
                    Ok(answer) => format!("last seen: {answer}"),
                    Err(error) => format!("{error:#}"),
                };
                bail!("{what} took longer than {within:?}; {seen}");
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

/// Runs a command to its end; what it printed, or what it complained of. Whoever stops waiting ends
/// it.
pub async fn succeed(command: &mut Command) -> anyhow::Result<Output> {
    let output = command.kill_on_drop(true).output().await;
    let failed = || format!("cannot run {}", command.as_std().get_program().display());
    let output = output.with_context(failed)?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{}", said.trim().trim_start_matches("error: "));
    }
    Ok(output)
}
