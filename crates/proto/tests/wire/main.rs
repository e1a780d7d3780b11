//! What goes over the wire comes out of it as it was, and what should not come over it is refused.

mod descriptors;
mod framing;
mod generators;
mod hostile;
mod roundtrip;
mod statuses;
