"""Does a model see its picture, and hear its sound? Probes of local models and of servers, with the chance of luck."""
