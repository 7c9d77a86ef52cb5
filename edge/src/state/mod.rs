//! Sessions and retained messages in redb, with the queue position that they reflect.
