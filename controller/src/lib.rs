//! The controller: edge, services, repositories, runner, connected agents.
