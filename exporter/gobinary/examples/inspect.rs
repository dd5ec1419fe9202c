//! Prints what an inspection finds: `cargo run -p gobinary --example inspect FILE [FUNCTION...]`.

use std::time::Instant;

use gobinary::GoBinary;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let Some((path, rest)) = args.split_first() else {
        eprintln!("usage: inspect FILE [FUNCTION...]");
        std::process::exit(2);
    };
    let mut functions: Vec<&str> = rest.iter().map(String::as_str).collect();
    if functions.is_empty() {
        functions = vec![
            "net/http.serverHandler.ServeHTTP",
            "net/http.(*response).finishRequest",
            "net/http.(*conn).serve",
            "runtime.casgstatus",
            "runtime.mcall",
            "runtime.gopark",
        ];
    }
    let layouts: [(&str, &[&str]); 2] = [
        ("net/http.response", &["conn", "req", "status", "wroteHeader", "written"]),
        ("runtime.g", &["atomicstatus", "goid", "m", "waitreason", "sched.sp", "sched.pc"]),
    ];
    let start = Instant::now();
    match GoBinary::open(path.as_ref(), &functions, &layouts) {
        Err(error) => {
            eprintln!("{path}: {error}");
            std::process::exit(1);
        }
        Ok(go) => {
            let info = &go.build_info;
            println!(
                "{path}: {} {} pie={} id={:?} in {:?}",
                info.go_version,
                go.arch,
                go.pie,
                go.build_id,
                start.elapsed()
            );
            println!("main {:?}, {} modules, {} settings", info.main, info.deps.len(), info.settings.len());
            println!("functions from {}, text {:#x?}", go.functions_from.as_str(), go.text_start);
            for function in go.functions() {
                println!("{:#x} {:6} {}", function.addr, function.size, function.name);
                match go.entry_site(function) {
                    Ok(site) => println!("    entry +{:#x} {} {:?}", site.function_offset, site.instruction, site.cost),
                    Err(error) => println!("    entry: {error}"),
                }
                match go.return_sites(function) {
                    Ok(sites) => println!("    {} returns", sites.len()),
                    Err(error) => println!("    returns: {error}"),
                }
                if let Some(site) = go.check_site(function) {
                    println!("    check +{:#x} {} {:?}", site.function_offset, site.instruction, site.cost);
                }
            }
            for &global in gobinary::Global::ALL {
                match go.global(global) {
                    Some(found) => println!("{:#x} {global} by {:?}", found.address, found.from),
                    None => println!("{}", go.global_missing(global).unwrap_or_default()),
                }
            }
            println!("layouts from {} {:?}", go.layouts().source().as_str(), go.layouts_reason());
            for (ty, field, offset) in go.layouts().all() {
                println!("    {ty}.{field} {offset}");
            }
            for line in go.notes.iter().chain(&go.contradictions) {
                println!("note: {line}");
            }
        }
    }
}
