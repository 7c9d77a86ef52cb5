//! The seam to the disk: few calls, each with one meaning, so that a simulated disk can lose exactly what a real one may.
