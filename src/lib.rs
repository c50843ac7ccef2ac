//! Zabra: ZooKeeper on the wire and on disk. The floor plan is in `ARCHITECTURE.md`.
