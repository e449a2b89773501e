//! What callsign is measured against.
