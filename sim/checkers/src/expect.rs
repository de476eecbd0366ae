//! The plan's `eventually` and `never`.
