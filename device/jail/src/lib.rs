//! Landlock, seccomp, resource limits and re-execution: the unsafe before exec.
