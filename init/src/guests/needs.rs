//! What a guest needs of the host before it is started: disks, bridges, files.
