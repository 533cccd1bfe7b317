//! From a component to its run: admission, grant, link, and then a program's exit or a service's requests.

use crate::arguments::{Checked, usage};
use crate::dial::{Anywhere, Resolving, broker};
use crate::fault::Fault;
use crate::{compile, learn, offer, remark};
use redan_host_api::bench::{Bench as Lent, Told, Witness};
use redan_host_api::egress::{Dial, Outside, public_tls};
use redan_host_api::kv::Stores;
use redan_host_api::outbox::queue::Outboxes;
use redan_host_api::state::Capabilities;
use redan_host_api::workload::{Pools, Workload as Account};
use redan_policy::grant::World;
use redan_policy::imports::admit_ask;
use redan_policy::suppose::{Given, suppose};
use redan_policy::{Ask, EffectiveGrant, intersect, parse_ask, parse_device, parse_fleet};
use redan_protocol::ipc::WorkloadKind;
use redan_protocol::{ByteCount, Code, Millis};
use redan_runtime::bench::{Bench, Workload};
use redan_runtime::compiler::surface;
use redan_runtime::engine::{Native, Sizes};
use std::io::Write as _;
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;

/// How long requests under way may take once the developer ends a service.
const DRAIN: Millis = Millis::seconds(5);

/// A component and what it is given.
struct Prepared {
    wasm: Vec<u8>,
    imports: Vec<String>,
    grant: EffectiveGrant,
}

/// Runs it. Gives the exit code of the program.
pub(crate) fn run(arguments: &Checked) -> Result<u8, Fault> {
    let prepared = prepare(arguments)?;
    if prepared.grant.world == World::Messages {
        return Err(unheard());
    }
    if !arguments.given.quiet {
        warn(arguments, &prepared);
    }
    // Before there are threads: a compiler must not outlive the thread that started it.
    let native = compile::native(&prepared.wasm, &prepared.grant, arguments.given.quiet)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("guest")
        .build()
        .map_err(Fault::system("starting threads"))?;
    let folder = tempfile::tempdir().map_err(Fault::system("making a folder for its data"))?;
    let data = arguments.given.data.as_deref().unwrap_or_else(|| folder.path());
    let witness = arguments.given.learn.as_ref().map(|_| Arc::<Witness>::default());
    let world = prepared.grant.world;
    let outcome = runtime.block_on(async {
        let lent = Arc::new(lend(arguments, data, world, witness.clone()));
        let capabilities = capabilities(arguments, &prepared.grant, data)?.on(&lent);
        let sizes = Sizes::default();
        let bench = Bench::new(
            arguments.given.ask.as_ref().map(|_| &sizes),
            Native::of(&prepared.grant),
        );
        let bench = bench.map_err(Fault::system("starting the sandbox"))?;
        let kind = match world {
            World::HttpProxy | World::HttpService => WorkloadKind::Service,
            World::Command => WorkloadKind::Job,
            World::Messages => WorkloadKind::Message,
        };
        let workload = bench.link(kind, &native, capabilities).map_err(Fault::refused)?;
        let outcome = match world {
            World::Command => job(&workload).await,
            World::HttpProxy | World::HttpService => service(arguments, &workload).await,
            World::Messages => Err(unheard()),
        };
        if lent.has_dropped() && !arguments.given.quiet {
            remark("it wrote to its log, which was thrown away: the ask has no [log]");
        }
        outcome
    });
    // A host call on a blocking thread (a terminal nobody types at) must not keep the process.
    runtime.shutdown_background();
    if let (Some(file), Some(witness)) = (&arguments.given.learn, witness) {
        write_learned(arguments, &prepared, file, &witness)?;
    }
    outcome
}

fn prepare(arguments: &Checked) -> Result<Prepared, Fault> {
    let path = &arguments.given.component;
    let wasm = std::fs::read(path).map_err(Fault::file(path))?;
    if !wasm.starts_with(b"\0asm") {
        return Err(Fault::Refused {
            what: format!(
                "{} is no WebAssembly at all; name the .wasm file that the build wrote",
                path.display()
            ),
            code: Code::MalformedComponent,
        });
    }
    // What is no component at all the compiler says, with the code for it.
    let (imports, exports) = surface(&wasm).unwrap_or_default();
    let ask = ask(arguments, &imports, &exports)?;
    if !imports.is_empty() || !exports.is_empty() {
        admit_ask(&imports, &exports, &ask).map_err(|refused| Fault::Refused {
            what: refused.to_string(),
            code: refused.code(),
        })?;
    }
    let mut grant = grant(arguments, &ask)?;
    if !arguments.arguments.is_empty() {
        grant.job_args.clone_from(&arguments.arguments);
    }
    Ok(Prepared { wasm, imports, grant })
}

/// The ask that is given, or one for everything.
fn ask(arguments: &Checked, imports: &[String], exports: &[String]) -> Result<Ask, Fault> {
    if let Some(file) = &arguments.given.ask {
        return Ok(parse_ask(&file.display().to_string(), &read(file)?)?);
    }
    let measured = arguments.given.learn.is_some();
    let world = offer::world(exports);
    let mut text = offer::everything(&arguments.name, world, imports, &arguments.config, measured);
    if measured {
        text.push_str(&learn::environment(&arguments.env));
        text.push_str(&learn::volumes(&arguments.folders)?);
    }
    Ok(parse_ask("(everything)", &text)?)
}

/// The intersection of what is given, and, where nothing is, of what admits the ask.
fn grant(arguments: &Checked, ask: &Ask) -> Result<EffectiveGrant, Fault> {
    let folders = arguments
        .folders
        .iter()
        .map(|folder| (folder.guest.clone(), folder.host.display().to_string()));
    let given = Given {
        env: arguments.env.clone(),
        config: arguments.config.clone(),
        folders: folders.collect(),
    };
    let (mut fleet, mut device) = suppose(ask, &given);
    if let Some(file) = &arguments.given.fleet {
        fleet = parse_fleet(&file.display().to_string(), &read(file)?)?;
    }
    if let Some(file) = &arguments.given.device {
        device = parse_device(&file.display().to_string(), &read(file)?)?;
    }
    let grant = intersect(ask, &fleet, &device).map_err(|denied| Fault::Denied(Box::new(denied)))?;
    let asked = arguments.given.ask.is_some();
    for folder in arguments.folders.iter().filter(|_| asked) {
        if !grant.fs.iter().any(|volume| volume.guest == folder.guest) {
            return Err(usage(
                format!("the grant has no volume at {}", folder.guest),
                "name it in the ask as [[fs]] with this `guest`, or take --dir away",
            ));
        }
    }
    Ok(grant)
}

fn read(file: &Path) -> Result<String, Fault> {
    std::fs::read_to_string(file).map_err(Fault::file(file))
}

fn warn(arguments: &Checked, prepared: &Prepared) {
    remark("NOTHING IS VERIFIED HERE: no signature, no fleet. A device runs only what its fleet has signed.");
    if arguments.given.ask.is_some() {
        return;
    }
    remark(
        "without an ask it is given everything this runtime offers; --ask shows what a device would give it.",
    );
    if prepared.grant.world.is_wasi_0_3() {
        remark(
            "it is of WASI 0.3: a device runs it only with wasi_0_3 = true under [runtime] in its ceiling.",
        );
    }
    if offer::imports_sockets(&prepared.imports) {
        remark("it imports wasi:sockets, which this runtime does not offer: every call of them is refused.");
    }
}

fn lend(arguments: &Checked, data: &Path, world: World, witness: Option<Arc<Witness>>) -> Lent {
    let service = world.is_service();
    let mut lent = Lent::at_terminal(
        witness.clone(),
        Box::new(move |told| match told {
            Told::Logged(line) => {
                let mut err = std::io::stderr();
                drop(err.write_all(line).and_then(|()| err.write_all(b"\n")));
            }
            Told::Trapped(error) => remark(&format!("it ended with: {error:#}")),
            Told::Failed(code) if service => {
                remark(&format!("a request failed: {code}; try: {}", code.remedy()));
            }
            Told::Failed(_) => {}
        }),
    );
    if arguments.given.ask.is_some() {
        return lent;
    }
    lent.every_request = true;
    let learning = witness.is_some();
    if learning || arguments.given.allow_http {
        let anywhere = Arc::new(Anywhere { witness });
        lent.anywhere = Some(resolving(arguments, anywhere));
    }
    lent.stores = Some(Stores::new(data.join("kv-any")));
    if !learning {
        lent.fine_clocks = true;
        lent.env = arguments.env.clone().into_iter().collect();
        let folders = arguments.folders.iter().cloned();
        lent.folders = folders.map(|f| (f.host, f.guest, f.write)).collect();
    }
    lent
}

fn resolving(arguments: &Checked, otherwise: Arc<dyn Dial>) -> Arc<dyn Dial> {
    let table = arguments.resolve.clone();
    Arc::new(Resolving { table, otherwise })
}

fn capabilities(
    arguments: &Checked,
    grant: &EffectiveGrant,
    data: &Path,
) -> Result<Arc<Capabilities>, Fault> {
    let dial = resolving(arguments, broker(grant)?);
    let tls = public_tls().map_err(Fault::system("TLS for outgoing requests"))?;
    let stores = Stores::new(data.join("kv"));
    let outboxes = Outboxes::new(data.join("outbox"));
    // Nobody shares this machine's memory with it; its own limits hold all the same.
    let pools = Pools::new();
    pools.set_memory(ByteCount::new(u64::MAX));
    let workload = Account::new(grant.component.clone(), &pools);
    let kept = (&stores, &outboxes);
    let outside = Outside {
        dial,
        public: tls,
        secrets: Arc::default(),
    };
    Capabilities::open(grant.clone(), data, kept, None, outside, &workload)
        .map_err(Fault::system("opening buckets and volumes"))
}

/// There is no broker here whose messages could call it.
fn unheard() -> Fault {
    usage(
        "a handler of messages is called by a broker's messages, and `redan dev` has no broker".to_owned(),
        "run it on a device of your own, whose ceiling maps the broker's label to one: see docs/policy.md",
    )
}

async fn job(workload: &Workload) -> Result<u8, Fault> {
    let status = workload.run().await.map_err(Fault::Ended)?;
    // As a shell sees it: the low byte.
    Ok(u8::try_from(status & 0xff).unwrap_or(1))
}

async fn service(arguments: &Checked, workload: &Workload) -> Result<u8, Fault> {
    workload.probe().await.map_err(Fault::Ended)?;
    let (stop, stopped) = tokio::sync::oneshot::channel();
    stop_on_signal(stop)?;
    let listener = TcpListener::bind(arguments.given.listen).map_err(Fault::system("listening"))?;
    let address = listener.local_addr().map_err(Fault::system("listening"))?;
    workload.serve(listener).map_err(Fault::system("listening"))?;
    let mut out = std::io::stdout();
    drop(writeln!(out, "redan dev: serving http://{address}/").and_then(|()| out.flush()));
    // Fails only when nobody can send: then it runs until it is killed.
    if stopped.await.is_err() {
        std::future::pending::<()>().await;
    }
    workload.end(DRAIN).await;
    Ok(0)
}

fn stop_on_signal(stop: tokio::sync::oneshot::Sender<()>) -> Result<(), Fault> {
    use signal_hook::consts::{SIGINT, SIGTERM};
    let signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM]);
    let mut signals = signals.map_err(Fault::system("watching for signals"))?;
    std::thread::spawn(move || {
        if signals.forever().next().is_some() {
            // Nobody waits any more: then it ends anyway.
            let _ = stop.send(());
        }
    });
    Ok(())
}

fn write_learned(
    arguments: &Checked,
    prepared: &Prepared,
    file: &Path,
    witness: &Witness,
) -> Result<(), Fault> {
    let learned = learn::ask(
        arguments,
        &prepared.imports,
        prepared.grant.world,
        &witness.seen(),
    );
    // Held against the component as `redan check` will, before anybody trusts it.
    parse_ask(&file.display().to_string(), &learned)?;
    std::fs::write(file, &learned).map_err(Fault::file(file))?;
    if !arguments.given.quiet {
        remark(&format!(
            "what it used is in {}; read it, then run it again with --ask {}",
            file.display(),
            file.display()
        ));
    }
    Ok(())
}
