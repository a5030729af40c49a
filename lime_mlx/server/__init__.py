"""The server: an HTTP API that clients of OpenAI's know, and a page that uses it. See docs/server.md."""
