//! Reads the stacks that `perf script` prints, and says which group each of them is charged to.

use super::group::Group;

/// One sample: what ran, and in the kernel also what it ran for.
#[derive(Debug, PartialEq, Eq)]
pub struct Stack<'a> {
    /// From the innermost to the outermost; never empty.
    frames: Vec<Frame<'a>>,
}

#[derive(Debug, PartialEq, Eq)]
struct Frame<'a> {
    symbol: &'a str,
    /// The file that the code is mapped from, or perf's name for the kernel, the vDSO and anonymous memory.
    object: &'a str,
}

/// The stacks of `perf script -F ip,sym,dso`: a line for each frame, empty lines between stacks.
pub fn parse(text: &str) -> Vec<Stack<'_>> {
    let mut stacks = Vec::new();
    let mut frames = Vec::new();
    for line in text.lines().chain([""]) {
        match frame(line) {
            Some(frame) => frames.push(frame),
            None if frames.is_empty() => {}
            None => stacks.push(Stack {
                frames: std::mem::take(&mut frames),
            }),
        }
    }
    stacks
}

/// An address, a symbol that may hold spaces and brackets, and the object in brackets.
fn frame(line: &str) -> Option<Frame<'_>> {
    let (_, rest) = line.trim().split_once(' ')?;
    let (symbol, object) = rest.rsplit_once(" (")?;
    Some(Frame {
        symbol,
        object: object.trim_end_matches(')'),
    })
}

impl<'a> Stack<'a> {
    /// The function that ran, without the functions that called it.
    pub fn symbol(&self) -> &'a str {
        self.frames
            .first()
            .map_or("[unknown]", |frame| frame.symbol)
    }

    /// `executable` is the server's own file.
    pub fn group(&self, executable: &str) -> Group {
        let Some(innermost) = self.frames.first() else {
            return Group::Rest;
        };
        if innermost.object == KERNEL {
            return self.kernel_group();
        }
        let object = innermost.object;
        if object == "[vdso]" {
            Group::Clocks
        } else if object == executable {
            program_group(innermost.symbol)
        } else if object.contains(".so") {
            if ALLOCATOR.contains(&innermost.symbol) {
                Group::Allocator
            } else {
                Group::Libc
            }
        } else {
            Group::Guest
        }
    }

    /// By the call or the fault that entered the kernel: what is deeper is shared by all of them.
    fn kernel_group(&self) -> Group {
        let kernel = self
            .frames
            .iter()
            .take_while(|frame| frame.object == KERNEL);
        let symbols: Vec<&str> = kernel.map(|frame| frame.symbol).collect();
        let within = |names: &[&str]| {
            let is_named = |symbol: &&str| names.iter().any(|name| symbol.contains(name));
            symbols.iter().any(is_named)
        };
        if within(&["asm_exc_page_fault"]) || within(MEMORY_CALLS) {
            Group::KernelMemory
        } else if within(&["sys_clock_gettime"]) {
            Group::Clocks
        } else if within(SOCKET_CALLS) {
            if within(&["sock_def_readable"]) {
                Group::KernelWake
            } else {
                Group::KernelSockets
            }
        } else {
            Group::KernelOther
        }
    }
}

const KERNEL: &str = "[kernel.kallsyms]";
/// ioctl is here because of `PAGEMAP_SCAN`, the only one that a server makes for each request.
const MEMORY_CALLS: &[&str] = &[
    "sys_ioctl",
    "sys_madvise",
    "sys_mmap",
    "sys_munmap",
    "sys_mprotect",
    "sys_mremap",
    "sys_brk",
];
const SOCKET_CALLS: &[&str] = &[
    "sys_recv",
    "sys_send",
    "sys_read",
    "sys_write",
    "do_readv",
    "do_writev",
    "ksys_read",
    "ksys_write",
    "sys_epoll",
    "do_epoll",
    "sys_accept",
    "sys_shutdown",
    "sys_close",
];
const ALLOCATOR: [&str; 6] = [
    "malloc",
    "free",
    "calloc",
    "realloc",
    "_int_malloc",
    "_int_free",
];

/// By the first crate that the symbol names and that is not of Rust's standard library.
fn program_group(symbol: &str) -> Group {
    if symbol.starts_with("mi_") || symbol.starts_with("_mi_") {
        return Group::Allocator;
    }
    let named = crates(symbol).find(|name| !matches!(*name, "core" | "alloc" | "std"));
    // Assembly of wasmtime's has no path.
    let name = named.unwrap_or(symbol);
    let starts = |prefixes: &[&str]| prefixes.iter().any(|prefix| name.starts_with(prefix));
    if starts(&["wasmtime_wasi", "wasi_", "wasmtime_wasi_http"]) {
        Group::Wasi
    } else if starts(&["wasmtime", "cranelift", "pulley"]) {
        Group::Wasmtime
    } else if starts(&["hyper", "http", "h2"]) || name == "bytes" {
        Group::Http
    } else if starts(&["tokio", "futures", "mio"]) {
        Group::Tokio
    } else if starts(&["tombolo"]) {
        Group::Tombolo
    } else {
        Group::Rest
    }
}

/// The first segment of each path in a symbol: `<a::B as c::D>::e` names `a` and `c`.
fn crates(symbol: &str) -> impl Iterator<Item = &str> {
    symbol.match_indices("::").filter_map(|(end, _)| {
        let before = symbol.get(..end)?;
        let is_name = |character: char| character.is_alphanumeric() || character == '_';
        let start = before
            .char_indices()
            .rev()
            .take_while(|(_, character)| is_name(*character))
            .last()?
            .0;
        let is_head = !before.get(..start)?.ends_with("::");
        is_head.then(|| before.get(start..)).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERF: &str = "
\tffffffff82201010 _raw_spin_unlock_irqrestore ([kernel.kallsyms])
\tffffffff81e2d4a0 sock_def_readable ([kernel.kallsyms])
\tffffffff816ba3ec do_writev ([kernel.kallsyms])
\tffffffff821ef691 do_syscall_64 ([kernel.kallsyms])
\t    7f2c7f0f1b40 __GI___writev (/usr/lib/x86_64-linux-gnu/libc.so.6)


\t    55e0c4d6f6d1 <(A1,) as wasmtime::Lower>::lower (/bin/server)
\t    55e0c4d6f6d2 main (/bin/server)

\t    7f2c5f0f1b40 [unknown] (/tmp/perf-12.map)
";

    fn stack(lines: &str) -> Group {
        parse(lines).first().unwrap().group("/bin/server")
    }

    fn in_kernel(symbol: &str, call: &str) -> Group {
        stack(&format!(
            "\t1 {symbol} ([kernel.kallsyms])\n\t2 {call} ([kernel.kallsyms])\n"
        ))
    }

    #[test]
    fn stacks_are_divided_by_empty_lines() {
        let stacks = parse(PERF);
        let symbols: Vec<&str> = stacks.iter().map(Stack::symbol).collect();
        let expected = [
            "_raw_spin_unlock_irqrestore",
            "<(A1,) as wasmtime::Lower>::lower",
            "[unknown]",
        ];
        assert_eq!(symbols, expected);
        let groups: Vec<Group> = stacks.iter().map(|s| s.group("/bin/server")).collect();
        let expected = [Group::KernelWake, Group::Wasmtime, Group::Guest];
        assert_eq!(groups, expected);
    }

    #[test]
    fn the_kernel_is_charged_to_the_call_that_entered_it() {
        let free = "kmem_cache_free";
        assert_eq!(in_kernel(free, "__x64_sys_recvfrom"), Group::KernelSockets);
        assert_eq!(in_kernel(free, "asm_exc_page_fault"), Group::KernelMemory);
        assert_eq!(in_kernel(free, "__x64_sys_ioctl"), Group::KernelMemory);
        assert_eq!(in_kernel(free, "__x64_sys_clock_gettime"), Group::Clocks);
        assert_eq!(
            in_kernel(free, "__x64_sys_clock_nanosleep"),
            Group::KernelOther
        );
    }

    #[test]
    fn code_of_the_program_goes_by_its_crate() {
        let group = |symbol: &str| stack(&format!("\t1 {symbol} (/bin/server)\n"));
        let drop = "core::ptr::drop_in_place<[tokio::sync::Permit; 2]>";
        assert_eq!(group(drop), Group::Tokio);
        let host = "<&mut _T as wasmtime_wasi_io::streams::Host>::drop";
        assert_eq!(group(host), Group::Wasi);
        assert_eq!(group("wasmtime_fiber_switch"), Group::Wasmtime);
        assert_eq!(group("<T as core::any::Any>::type_id"), Group::Rest);
        assert_eq!(group("_mi_page_malloc_zero"), Group::Allocator);
        assert_eq!(group("tombolo_runtime::meter::Meter::poll"), Group::Tombolo);
    }
}
