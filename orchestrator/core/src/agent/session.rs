//! The agent's session with the leading manager: find it, register, say "still here".
//!
//! Heartbeats depend on nothing but time: no runtime call, pull or report can hold them up. Losing
//! the session stops nothing either; tasks go on and reports wait.

use std::time::Duration;

use wavetank_model::{Epoch, Incarnation, Instant, NodeId, Notice, Revision, SessionId};

use super::AgentConfig;
use crate::message::Message;
use crate::process::Context;
use crate::random::jittered;

/// Hints that are followed at once before the agent waits: managers that point at each other must
/// not keep it going round at the speed of the network.
const HINTS_FOLLOWED_MAX: u32 = 3;

/// Where the session is.
#[derive(Clone, Debug, PartialEq)]
enum State {
    /// Will ask this manager.
    Waiting { manager: NodeId, until: Instant },
    /// Has asked this manager.
    Registering { manager: NodeId, until: Instant },
    /// Belongs to this manager.
    Open {
        manager: NodeId,
        session: SessionId,
        heard_at: Instant,
        heartbeat_at: Instant,
    },
    /// There is nobody to ask.
    Nobody,
}

/// What an input meant for the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SessionChange {
    None,
    Opened { manager: NodeId },
}

/// The agent's session.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Session {
    state: State,
    hints_followed: u32,
}

impl Session {
    /// Asks the given manager first.
    pub fn new(first: Option<NodeId>, now: Instant) -> Self {
        let state = first.map_or(State::Nobody, |manager| State::Waiting {
            manager,
            until: now,
        });
        Session {
            state,
            hints_followed: 0,
        }
    }

    /// The open session, with its manager.
    pub fn open(&self) -> Option<(SessionId, NodeId)> {
        match self.state {
            State::Open {
                manager, session, ..
            } => Some((session, manager)),
            _ => None,
        }
    }

    /// True if this is the open session.
    pub fn is(&self, session: SessionId) -> bool {
        self.open().is_some_and(|(open, _)| open == session)
    }

    pub fn next_deadline(&self, timeout: Duration) -> Instant {
        match self.state {
            State::Waiting { until, .. } | State::Registering { until, .. } => until,
            State::Open {
                heard_at,
                heartbeat_at,
                ..
            } => heartbeat_at.min(heard_at + timeout),
            State::Nobody => Instant::NEVER,
        }
    }

    /// Sends what is due; looks for another manager if this one has been silent for too long.
    pub fn handle_timer(
        &mut self,
        ctx: &mut Context<'_>,
        config: &AgentConfig,
        seen: Option<(Epoch, Revision)>,
    ) {
        let now = ctx.now();
        match self.state {
            State::Waiting { manager, until } if until <= now => {
                self.register(ctx, config, manager);
            }
            State::Registering { manager, until } if until <= now => {
                self.hints_followed = 0;
                self.register(ctx, config, next_manager(config, manager));
            }
            State::Open {
                manager, heard_at, ..
            } if heard_at + config.timers.session_timeout <= now => {
                self.lose(ctx);
                self.register(ctx, config, next_manager(config, manager));
            }
            State::Open { heartbeat_at, .. } if heartbeat_at <= now => {
                self.send_heartbeat(ctx, config, seen);
            }
            _ => {}
        }
    }

    /// A leader accepted the agent. One of an older epoch than the agent has worked for is not
    /// believed; nor is an answer to another boot, or to a question that was answered already.
    pub fn handle_registered(
        &mut self,
        ctx: &mut Context<'_>,
        config: &AgentConfig,
        from: NodeId,
        (incarnation, session, epoch): (Incarnation, SessionId, Epoch),
        seen: Option<(Epoch, Revision)>,
    ) -> SessionChange {
        let is_stale = seen.is_some_and(|(newest, _)| epoch < newest);
        let is_open = self.open().is_some();
        if incarnation != config.incarnation || is_stale || is_open {
            return SessionChange::None;
        }
        let now = ctx.now();
        self.hints_followed = 0;
        self.state = State::Open {
            manager: from,
            session,
            heard_at: now,
            heartbeat_at: now,
        };
        ctx.notice(Notice::SessionOpened {
            session,
            epoch,
            manager: from,
        });
        self.send_heartbeat(ctx, config, seen);
        SessionChange::Opened { manager: from }
    }

    /// The leader heard the heartbeat.
    pub fn handle_acknowledged(&mut self, now: Instant, acknowledged: SessionId) {
        if let State::Open {
            session, heard_at, ..
        } = &mut self.state
            && *session == acknowledged
        {
            *heard_at = now;
        }
    }

    /// A manager does not know the session (any more): it leads, so register with it.
    pub fn handle_unknown(
        &mut self,
        ctx: &mut Context<'_>,
        config: &AgentConfig,
        from: NodeId,
        unknown: SessionId,
    ) {
        if self.is(unknown) {
            self.lose(ctx);
            self.register(ctx, config, from);
        }
    }

    /// A manager does not lead.
    pub fn handle_redirect(
        &mut self,
        ctx: &mut Context<'_>,
        config: &AgentConfig,
        from: NodeId,
        leader: Option<NodeId>,
    ) {
        match self.state {
            State::Open { manager, .. } if manager == from => self.lose(ctx),
            State::Registering { manager, .. } if manager == from => {}
            // From a manager that was asked long ago, or for something else.
            _ => return,
        }
        match leader.filter(|leader| *leader != from) {
            Some(leader) if self.hints_followed < HINTS_FOLLOWED_MAX => {
                self.hints_followed += 1;
                self.register(ctx, config, leader);
            }
            hint => {
                let manager = hint.unwrap_or_else(|| next_manager(config, from));
                self.wait(ctx, config, manager);
            }
        }
    }

    /// A manager's process is gone.
    pub fn handle_connection_lost(
        &mut self,
        ctx: &mut Context<'_>,
        config: &AgentConfig,
        peer: NodeId,
    ) {
        match self.state {
            State::Open { manager, .. } if manager == peer => self.lose(ctx),
            State::Registering { manager, .. } if manager == peer => {}
            _ => return,
        }
        self.wait(ctx, config, next_manager(config, peer));
    }

    fn lose(&mut self, ctx: &mut Context<'_>) {
        if let Some((session, _)) = self.open() {
            ctx.notice(Notice::SessionLost { session });
        }
    }

    /// Asks a manager after a short wait, jittered so that a leader's agents do not all fall upon
    /// its successor in the same moment.
    fn wait(&mut self, ctx: &mut Context<'_>, config: &AgentConfig, manager: NodeId) {
        self.hints_followed = 0;
        let until = ctx.now() + jittered(ctx.rng(), config.timers.request_retry / 8);
        self.state = State::Waiting { manager, until };
    }

    fn register(&mut self, ctx: &mut Context<'_>, config: &AgentConfig, manager: NodeId) {
        let until = ctx.now() + jittered(ctx.rng(), config.timers.request_retry);
        self.state = State::Registering { manager, until };
        let message = Message::Register {
            incarnation: config.incarnation,
            resources: config.resources,
            labels: config.labels.clone(),
        };
        ctx.send(manager, message);
    }

    fn send_heartbeat(
        &mut self,
        ctx: &mut Context<'_>,
        config: &AgentConfig,
        seen: Option<(Epoch, Revision)>,
    ) {
        let State::Open {
            manager,
            session,
            heartbeat_at,
            ..
        } = &mut self.state
        else {
            return;
        };
        let next = *heartbeat_at + config.timers.heartbeat;
        // A process that stood still does not send what it missed.
        *heartbeat_at = if next > ctx.now() {
            next
        } else {
            ctx.now() + config.timers.heartbeat
        };
        let message = Message::Heartbeat {
            session: *session,
            sent_at: ctx.wall().0,
            assignments: seen.unwrap_or_default(),
        };
        ctx.send(*manager, message);
    }
}

fn next_manager(config: &AgentConfig, after: NodeId) -> NodeId {
    let managers = &config.managers;
    let at = managers.iter().position(|manager| *manager == after);
    let next = at.map_or(0, |at| (at + 1) % managers.len());
    managers.get(next).copied().unwrap_or(after)
}
