//! Decodes mutated frames and messages, or asks the API mutated requests: `cargo run --release -p
//! wavetank-node --example mutate -- [frames|requests] [inputs] [seed]`, a million and 0 if nothing
//! else is said. Ends early only by a panic or by an answer that was never meant.

use std::time::Instant;

use anyhow::Context as _;
use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng as _;

#[path = "../tests/it/mutation.rs"]
mod mutation;
#[path = "../tests/it/requests.rs"]
mod requests;

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let what = arguments.next().unwrap_or_else(|| "frames".to_owned());
    let mut number = |otherwise| {
        arguments.next().map_or(Ok(otherwise), |text| {
            text.parse()
                .with_context(|| format!("`{text}` is no number"))
        })
    };
    let (inputs, seed): (u64, u64) = (number(1_000_000)?, number(0)?);
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let began = Instant::now();
    let result = match what.as_str() {
        "frames" => frames(inputs, &mut rng),
        "requests" => ask(inputs, &mut rng)?,
        _ => anyhow::bail!("`{what}` is neither `frames` nor `requests`"),
    };
    let took = began.elapsed().as_secs_f64();
    println!("{inputs} {what} from seed {seed} in {took:.1} s: {result}");
    Ok(())
}

fn frames(inputs: u64, rng: &mut ChaCha8Rng) -> String {
    let seeds = mutation::seeds();
    for _ in 0..inputs {
        mutation::decode(&mutation::mutated(&seeds, rng));
    }
    "decoded or refused".to_owned()
}

fn ask(inputs: u64, rng: &mut ChaCha8Rng) -> anyhow::Result<String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let asked = runtime.block_on(requests::ask_many(inputs, rng));
    let [not_http, done, refused] = asked.map_err(anyhow::Error::msg)?;
    Ok(format!(
        "{not_http} were no HTTP, {done} done, {refused} refused"
    ))
}
