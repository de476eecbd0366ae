//! The simulated runtime of the event world behind the async runtime port.
