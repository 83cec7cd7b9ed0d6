//! A deployed function: what it is, what it may use, its machine code and the instances kept for reuse.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio_util::task::TaskTracker;
use tombolo_core::{Blame, Code, Digest, Failure, FunctionId, Name};
use tombolo_manifest::{DirectoryGrant, HostPattern, Isolation, Limits, SocketGrant};
use tombolo_store::KeyValue;
use tombolo_telemetry::{FunctionMetrics, LogStream};
use wasmtime::Engine;
use wasmtime::component::Component;
use wasmtime_wasi::sockets::SocketAddrUse;
use wasmtime_wasi::{FsPerms, WasiCtx, WasiCtxBuilder};

pub(crate) use tombolo_manifest::Grants;

use crate::code_cache::{CodeCache, Stored};
use crate::concurrent::Shards;
use crate::egress::special;
use crate::engine::EngineKind;
use crate::gate::Gate;
use crate::instance::{Instance, Pre};
use crate::linker::Linkers;
use crate::output::{GuestOutput, InvocationLog};
use crate::world::World;

/// A function that is ready to be installed.
#[derive(Clone)]
pub struct LoadedFunction(pub(crate) Arc<Function>);

impl LoadedFunction {
    /// Which function it is.
    pub fn id(&self) -> &FunctionId {
        &self.0.id
    }
}

pub(crate) struct Function {
    pub(crate) id: FunctionId,
    pub(crate) world: World,
    pub(crate) kind: EngineKind,
    pub(crate) engine: Engine,
    pub(crate) stored: Arc<Stored>,
    pub(crate) isolation: Isolation,
    pub(crate) limits: Limits,
    pub(crate) grants: Arc<Grants>,
    pub(crate) env: Vec<(String, String)>,
    /// What `wasi:config` shows: the manifest's values, and the granted secrets over them.
    pub(crate) config: BTreeMap<String, String>,
    pub(crate) key_values: BTreeMap<Name, KeyValue>,
    pub(crate) gate: Gate,
    pub(crate) metrics: Arc<FunctionMetrics>,
    pub(crate) cache: Arc<CodeCache>,
    pub(crate) linkers: Arc<Linkers>,
    pub(crate) concurrent: Shards,
    pub(crate) code: RwLock<Option<Arc<Pre>>>,
    pub(crate) loading: tokio::sync::Mutex<()>,
    pub(crate) idle: Mutex<Vec<Instance>>,
    /// Instances that it keeps for reuse; none once a new release has taken its place.
    pub(crate) idle_max: AtomicUsize,
    pub(crate) made: Instant,
    pub(crate) used_ms: AtomicU64,
}

/// What the node tells about a function.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct FunctionStatus {
    /// The world of the component, such as `wasi:http 0.2`.
    pub world: String,
    pub isolation: String,
    pub digest: Digest,
    /// Whether its machine code is mapped now.
    pub code_loaded: bool,
    /// Instances that wait to be used again.
    pub instances_idle: usize,
}

/// An instance that served so many invocations is replaced by a fresh one.
pub(crate) const REUSE_MAX: u32 = 128;
/// Instances that one function keeps for reuse, at most.
pub(crate) const IDLE_INSTANCES_MAX: usize = 64;

impl Function {
    /// The machine code, mapped now if it is not. When there is none on disk, it is compiled
    /// afterwards, and the caller is asked to come again.
    pub(crate) async fn code(
        self: &Arc<Self>,
        afterwards: &TaskTracker,
    ) -> Result<Arc<Pre>, Failure> {
        let now_ms = u64::try_from(self.made.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.used_ms.store(now_ms, Relaxed);
        if let Some(code) = self.mapped() {
            return Ok(code);
        }
        let _only_one = self.loading.lock().await;
        if let Some(code) = self.mapped() {
            return Ok(code);
        }
        let began = Instant::now();
        let function = Arc::clone(self);
        let loaded = tokio::task::spawn_blocking(move || function.map_code()).await;
        let code = loaded
            .map_err(|error| self.host_failure(&error))?
            .map_err(|error| self.host_failure(error.as_ref()))?;
        let Some(code) = code else {
            self.compile_code(afterwards);
            let detail = "the function's machine code is being compiled again";
            return Err(Failure::new(Code::Compiling, Blame::Host, detail)
                .retry_after(Duration::from_secs(1)));
        };
        self.metrics.cold_start(began.elapsed());
        Ok(code)
    }

    /// Maps the machine code when it is on disk; blocks.
    fn map_code(&self) -> wasmtime::Result<Option<Arc<Pre>>> {
        let component = self.cache.map(&self.engine, &self.stored);
        component
            .map(|component| self.link_code(&component))
            .transpose()
    }

    fn link_code(&self, component: &Component) -> wasmtime::Result<Arc<Pre>> {
        let linker = self.linkers.get(self.kind, &self.engine)?;
        let pre = Arc::new(Pre::new(&linker, component, self.world)?);
        self.set_code(Some(Arc::clone(&pre)));
        Ok(pre)
    }

    /// Compiles the machine code on a thread of its own, unless another function's is being compiled.
    fn compile_code(self: &Arc<Self>, afterwards: &TaskTracker) {
        let Ok(only_one) = Arc::clone(&self.cache.recompiling).try_lock_owned() else {
            return;
        };
        let function = Arc::clone(self);
        afterwards.spawn_blocking(move || {
            let _only_one = only_one;
            let began = Instant::now();
            let compiled = function.cache.compile(&function.engine, &function.stored);
            let linked = compiled
                .map_err(wasmtime::Error::new)
                .and_then(|component| function.link_code(&component));
            match linked {
                Ok(_) => function.metrics.cold_start(began.elapsed()),
                Err(error) => function.report(error.as_ref()),
            }
        });
    }

    pub(crate) fn set_code(&self, code: Option<Arc<Pre>>) {
        *self.code.write().unwrap_or_else(PoisonError::into_inner) = code;
    }

    fn mapped(&self) -> Option<Arc<Pre>> {
        self.code
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn report(&self, error: &(dyn std::error::Error + 'static)) {
        tracing::error!(function = %self.id, %error, "the machine code of a function cannot be had");
    }

    fn host_failure(&self, error: &(dyn std::error::Error + 'static)) -> Failure {
        self.report(error);
        Failure::new(
            Code::HostError,
            Blame::Host,
            "the function's machine code cannot be had",
        )
    }

    /// Lets go of instances and machine code when the function was not used for `idle_after`.
    pub(crate) fn rest(&self, idle_after: Duration) {
        let used = Duration::from_millis(self.used_ms.load(Relaxed));
        if self.made.elapsed().saturating_sub(used) < idle_after {
            return;
        }
        self.concurrent.clear();
        self.idle().clear();
        self.set_code(None);
    }

    /// A new release has taken the function's place: it keeps no instance from now on. Each of them
    /// holds the function, which would otherwise live as long as they do.
    pub(crate) fn retire(&self) {
        self.idle_max.store(0, Relaxed);
        self.concurrent.retire();
        let instances = std::mem::take(&mut *self.idle());
        drop(instances);
    }

    /// Lets go of one instance that serves nothing now; false when there is none.
    pub(crate) fn give_way(&self) -> bool {
        let mut idle = self.idle();
        let oldest = (!idle.is_empty()).then(|| idle.remove(0));
        drop(idle);
        oldest.is_some() || self.concurrent.give_way()
    }

    /// An instance that was used before, where isolation allows.
    pub(crate) fn take_idle(&self) -> Option<Instance> {
        if self.isolation == Isolation::Serial {
            self.idle().pop()
        } else {
            None
        }
    }

    /// Keeps an instance for the next invocation, where isolation allows.
    pub(crate) fn keep_idle(&self, instance: Instance) {
        if self.isolation != Isolation::Serial || instance.uses >= REUSE_MAX {
            return;
        }
        let mut idle = self.idle();
        if idle.len() < self.idle_max.load(Relaxed) {
            idle.push(instance);
        }
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Instance>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn status(&self) -> FunctionStatus {
        FunctionStatus {
            world: self.world.to_string(),
            isolation: self.isolation.to_string(),
            digest: self.stored.digest,
            code_loaded: self.mapped().is_some(),
            instances_idle: self.idle().len() + self.concurrent.instances(),
        }
    }

    /// The WASI of a fresh instance: the manifest's environment, the granted folders and sockets, and output to the log.
    pub(crate) fn wasi(
        &self,
        log: &Arc<InvocationLog>,
        random_bytes_max: u64,
    ) -> wasmtime::Result<WasiCtx> {
        let mut wasi = WasiCtxBuilder::new();
        wasi.max_random_size(random_bytes_max);
        wasi.stdout(GuestOutput {
            log: Arc::clone(log),
            stream: LogStream::Stdout,
        });
        wasi.stderr(GuestOutput {
            log: Arc::clone(log),
            stream: LogStream::Stderr,
        });
        wasi.envs(&self.env);
        grant_directories(&mut wasi, &self.grants.directories)?;
        grant_sockets(&mut wasi, &self.grants.sockets);
        Ok(wasi.build())
    }
}

pub(crate) fn grant_directories(
    wasi: &mut WasiCtxBuilder,
    grants: &[DirectoryGrant],
) -> wasmtime::Result<()> {
    for grant in grants {
        let permissions = if grant.writable {
            FsPerms::ReadWrite
        } else {
            FsPerms::ReadOnly
        };
        wasi.preopened_dir(&grant.host, &grant.guest, permissions)?;
    }
    Ok(())
}

/// Without a grant a guest can neither resolve a name nor open a connection; a socket is always refused
/// by address, so a granted name is resolved again and compared.
pub(crate) fn grant_sockets(wasi: &mut WasiCtxBuilder, grants: &[SocketGrant]) {
    if grants.is_empty() {
        return;
    }
    wasi.allow_ip_name_lookup(true)
        .allow_tcp(true)
        .allow_udp(true);
    let grants: Arc<[SocketGrant]> = grants.into();
    wasi.socket_addr_check(move |address, usage| {
        let grants = Arc::clone(&grants);
        Box::pin(async move {
            // Before it connects, a guest's socket is bound to no address in particular; that reaches nobody.
            let bind = matches!(usage, SocketAddrUse::TcpBind | SocketAddrUse::UdpBind);
            if bind && address.ip().is_unspecified() && address.port() == 0 {
                return true;
            }
            for grant in grants.iter() {
                let SocketGrant::Endpoint { host, port } = grant else {
                    return true;
                };
                if port.is_some_and(|port| port != address.port()) {
                    continue;
                }
                let covers = match host {
                    HostPattern::Any => true,
                    HostPattern::Address(granted) => *granted == address.ip(),
                    HostPattern::Name(name) => {
                        tokio::net::lookup_host((name.as_str(), address.port()))
                            .await
                            .is_ok_and(|mut found| found.any(|found| found.ip() == address.ip()))
                            // Whoever owns the name must not open what only an address can be granted.
                            && special(address.ip()).is_none()
                    }
                    HostPattern::Subdomains(_) => false,
                };
                if covers {
                    return true;
                }
            }
            false
        })
    });
}
