//! Ingest of edge batches: lanes, incarnations, explicit gaps, rejections, de-duplication by origin.
