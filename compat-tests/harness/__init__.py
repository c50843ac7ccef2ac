"""Starts servers for tests: Zabra's binary, or Java's of the same version with SERVER=java."""
