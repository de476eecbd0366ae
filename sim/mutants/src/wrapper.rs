//! A process with an edit around it.

use wavetank_core::{Context, Effects, Input, Process};
use wavetank_model::Instant;

/// Changes what goes into a process and what comes out.
pub trait Edit: Send {
    /// What the process is told instead; `None` hides the input from it.
    fn input(&mut self, input: Input) -> Option<Input> {
        Some(input)
    }

    /// Changes what the process wants. Inputs that are returned are handed to it right away, for
    /// answers to what never left.
    fn effects(&mut self, effects: &mut Effects) -> Vec<Input> {
        let _ = effects;
        Vec::new()
    }
}

/// A process with an edit around it.
pub struct Mutated {
    inner: Box<dyn Process>,
    edit: Box<dyn Edit>,
}

impl Mutated {
    /// Wraps a process.
    pub fn new(inner: Box<dyn Process>, edit: Box<dyn Edit>) -> Self {
        Mutated { inner, edit }
    }
}

impl Process for Mutated {
    fn handle(&mut self, ctx: &mut Context<'_>, input: Input) {
        let mut inputs: Vec<Input> = self.edit.input(input).into_iter().collect();
        while let Some(input) = inputs.pop() {
            let mut effects = Effects::default();
            let (now, wall) = (ctx.now(), ctx.wall());
            self.inner
                .handle(&mut Context::new(now, wall, ctx.rng(), &mut effects), input);
            inputs.extend(self.edit.effects(&mut effects));
            forward(ctx, effects);
        }
    }

    fn next_deadline(&self) -> Instant {
        self.inner.next_deadline()
    }
}

fn forward(ctx: &mut Context<'_>, effects: Effects) {
    for record in effects.persist {
        ctx.persist(record);
    }
    for (to, message) in effects.messages {
        ctx.send(to, message);
    }
    for call in effects.calls {
        ctx.call(call.call, call.command);
    }
    for request in effects.locks {
        ctx.lock(request);
    }
    for completion in effects.completions {
        ctx.complete(completion.id, completion.result);
    }
    for notice in effects.notices {
        ctx.notice(notice);
    }
    if let Some(why) = effects.fatal {
        ctx.fatal(why);
    }
}
