//! Next hops, routes, addresses and interfaces that change beneath a node.
