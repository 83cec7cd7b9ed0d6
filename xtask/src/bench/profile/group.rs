//! The groups that a server's time is divided into, and what belongs to each.

use serde::Serialize;

/// In the order of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Group {
    KernelSockets,
    KernelWake,
    KernelMemory,
    KernelOther,
    Clocks,
    Guest,
    Wasmtime,
    Wasi,
    Http,
    Tokio,
    Tombolo,
    Allocator,
    Libc,
    Rest,
}

impl Group {
    pub const ALL: [Self; 14] = [
        Self::KernelSockets,
        Self::KernelWake,
        Self::KernelMemory,
        Self::KernelOther,
        Self::Clocks,
        Self::Guest,
        Self::Wasmtime,
        Self::Wasi,
        Self::Http,
        Self::Tokio,
        Self::Tombolo,
        Self::Allocator,
        Self::Libc,
        Self::Rest,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::KernelSockets => "kernel: sockets and epoll",
            Self::KernelWake => "kernel: waking the client",
            Self::KernelMemory => "kernel: memory",
            Self::KernelOther => "kernel: other",
            Self::Clocks => "clocks",
            Self::Guest => "guest code",
            Self::Wasmtime => "wasmtime",
            Self::Wasi => "WASI on wasmtime",
            Self::Http => "hyper and http",
            Self::Tokio => "tokio",
            Self::Tombolo => "tombolo",
            Self::Allocator => "allocator",
            Self::Libc => "libc",
            Self::Rest => "rest",
        }
    }

    pub fn content(self) -> &'static str {
        match self {
            Self::KernelSockets => {
                "read, write, send, receive, accept, close and epoll calls, with the loopback network's way to the client's socket; waking the client is not in it"
            }
            Self::KernelWake => {
                "what a write spends below `sock_def_readable`: waking a load generator that waits. One that never waits, because it is the slower of the two, is not woken"
            }
            Self::KernelMemory => {
                "page faults, madvise, mmap, munmap, mprotect, mremap, brk, and ioctl, which here is the pagemap scan that resets an instance's memory"
            }
            Self::KernelOther => {
                "entering and leaving calls, the sleep of the thread that ticks, futexes, timer interrupts, switching threads"
            }
            Self::Clocks => {
                "clock_gettime in the kernel (a thread's CPU time) and in the vDSO (the time of day)"
            }
            Self::Guest => {
                "machine code compiled from the component, with the trampolines between it and the host: memory that belongs to no program or library"
            }
            Self::Wasmtime => "crates wasmtime, wasmtime-environ, wasmtime-internal-*, cranelift-*",
            Self::Wasi => "crates wasmtime-wasi, wasmtime-wasi-io, wasmtime-wasi-http",
            Self::Http => {
                "crates hyper, hyper-util, http, http-body, http-body-util, httparse, h2, bytes"
            }
            Self::Tokio => "crates tokio, tokio-util, mio, futures-*",
            Self::Tombolo => "crates tombolo and tombolo-*",
            Self::Allocator => "mimalloc; malloc and free of the C library",
            Self::Libc => "the C library without its allocator; most of it is memmove and memset",
            Self::Rest => {
                "Rust's standard library where the symbol names no other crate, all other crates, and what has no symbol"
            }
        }
    }
}
