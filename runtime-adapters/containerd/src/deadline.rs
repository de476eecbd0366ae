//! The one place where a call's deadline is kept, and where a call outlives its caller.

use std::time::Duration;

use wavetank_port::{ErrorClass, RuntimeError, runtime::Result};

/// How long work goes on that nobody waits for any more. Longer than any healthy daemon takes for
/// a create or a delete under load, so that only a hung one is left in the middle.
const UNATTENDED_MAX: Duration = Duration::from_secs(120);

/// `work`, cancelled when `within` is over.
pub(crate) async fn bounded<T>(
    call: &str,
    within: Duration,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    match tokio::time::timeout(within, work).await {
        Ok(answer) => answer,
        Err(_) => Err(RuntimeError::new(
            ErrorClass::DeadlineExceeded,
            format!("{call}: no answer within {within:?}"),
        )),
    }
}

/// `work`, which the caller stops waiting for when `within` is over but which goes on.
pub(crate) async fn finished<T: Send + 'static>(
    call: &str,
    within: Duration,
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    let name = call.to_owned();
    let work = tokio::spawn(async move { bounded(&name, UNATTENDED_MAX.max(within), work).await });
    bounded(call, within, async {
        work.await.unwrap_or_else(|error| {
            let message = format!("{call}: {error}");
            Err(RuntimeError::new(ErrorClass::Unknown, message))
        })
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::sync::oneshot;
    use wavetank_port::ErrorClass;

    use super::{bounded, finished};

    #[tokio::test(start_paused = true)]
    async fn a_call_ends_at_its_deadline() {
        let never = std::future::pending::<Result<(), _>>();
        let error = bounded("it", Duration::from_secs(3), never)
            .await
            .expect_err("never");
        assert_eq!(error.class, ErrorClass::DeadlineExceeded);
    }

    #[tokio::test]
    async fn a_call_that_must_not_be_cut_short_outlives_its_caller() {
        let (begin, begun) = oneshot::channel::<()>();
        let (go_on, released) = oneshot::channel::<()>();
        let (say, done) = oneshot::channel::<()>();
        let call = tokio::spawn(finished("it", Duration::from_secs(60), async move {
            begin.send(()).expect("somebody waits");
            released.await.expect("it is released");
            say.send(()).expect("somebody waits");
            Ok(())
        }));
        begun.await.expect("it begins");
        call.abort();
        go_on.send(()).expect("it is still there");
        done.await.expect("it was done to the end");
    }
}
