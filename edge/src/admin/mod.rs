//! Status as JSON and metrics of the edge.
