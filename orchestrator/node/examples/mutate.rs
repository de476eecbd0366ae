//! Decodes mutated frames and messages: `cargo run --release -p wavetank-node --example mutate --
//! [inputs] [seed]`, a million and 0 if nothing else is said. Ends early only by a panic.

use anyhow::Context as _;
use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng as _;

#[path = "../tests/it/mutation.rs"]
mod mutation;

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut number = |otherwise| {
        arguments.next().map_or(Ok(otherwise), |text| {
            text.parse()
                .with_context(|| format!("`{text}` is no number"))
        })
    };
    let (inputs, seed): (u64, u64) = (number(1_000_000)?, number(0)?);
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let seeds = mutation::seeds();
    for _ in 0..inputs {
        mutation::decode(&mutation::mutated(&seeds, &mut rng));
    }
    println!("{inputs} inputs from seed {seed}: decoded or refused");
    Ok(())
}
