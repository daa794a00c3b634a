// What Gradio cannot do: an error stands at its field as well, in whatever fold that is.
(() => {
  const marks = new Set(); // of errors on the page: { alert, note, field }

  const pause = () => new Promise((done) => setTimeout(done, 50));
  const shown = (id) => document.getElementById(id)?.checkVisibility() ?? false;

  // Opens the folds below an element until the field is shown: what is in a closed one may not have been built yet.
  async function unfold(root, id) {
    for (const fold of root.querySelectorAll("button.label-wrap:not(.open)")) {
      fold.click();
      await pause();
      if (shown(id) || (await unfold(fold.parentElement, id))) return true;
      fold.click();
    }
    return shown(id);
  }

  async function mark(alert) {
    alert.dataset.marked = "";
    const id = alert.dataset.field;
    const page = alert.closest("[role=tabpanel]") ?? document.body;
    if (!(shown(id) || (await unfold(page, id))) || !alert.isConnected) return;
    const field = document.getElementById(id);
    const note = document.createElement("p");
    note.className = "t2i-error t2i-at-field";
    note.id = `${field.id}-error`;
    note.textContent = alert.textContent;
    field.append(note);
    const input = field.querySelector("input, textarea");
    const one = { alert, note, field, input };
    field.classList.add("t2i-invalid");
    input?.setAttribute("aria-invalid", "true");
    input?.setAttribute("aria-describedby", note.id);
    field.addEventListener("input", () => clear(one), { once: true });
    field.scrollIntoView({ block: "nearest" });
    input?.focus({ preventScroll: true });
    marks.add(one);
  }

  function clear(one) {
    one.note.remove();
    one.field.classList.remove("t2i-invalid");
    one.input?.removeAttribute("aria-invalid");
    one.input?.removeAttribute("aria-describedby");
    marks.delete(one);
  }

  // Gradio puts the button that chooses files into another button, which nobody can reach by keyboard or by ear.
  function unnest(outer) {
    const own = outer.cloneNode(true);
    own.querySelector("button").remove();
    own.ariaLabel = own.title = "Choose files";
    own.addEventListener("click", () => outer.querySelector("input").click());
    outer.style.display = "none";
    outer.dataset.replaced = "";
    outer.before(own);
  }

  new MutationObserver(() => {
    document.querySelectorAll("button.icon-button:has(button):not([data-replaced])").forEach(unnest);
    for (const one of [...marks]) if (!one.alert.isConnected) clear(one);
    document.querySelectorAll("[role=alert][data-field]:not([data-marked])").forEach(mark);
  }).observe(document.documentElement, { childList: true, subtree: true });
})();

// What is done with a job from anywhere on the page goes to the server by one event; addresses and forms stay here.
const t2i = (() => {
  const acts = ["open", "again", "vary", "compare", "use", "send", "try", "cancel", "delete", "latest", "exact", "advised"];

  // Opens a tab, by its button or, where the row has no room for that, its line in the menu.
  function go(kind) {
    const buttons = [...document.querySelectorAll("[role=tab], .overflow-dropdown button")];
    buttons.find((one) => one.textContent.trim().toLowerCase() === kind)?.click();
  }

  // The tab of the job in the page's address, unless the user has gone elsewhere while that was looked up.
  let moved = false;
  const arrive = (kind) => kind && !moved && go(kind);
  document.addEventListener("click", (event) => {
    moved ||= event.isTrusted && !!event.target.closest?.("[role=tab], .overflow-dropdown button");
  });

  // The page's address with the job that it shows, or without one.
  function address(job) {
    const url = new URL(location);
    job ? url.searchParams.set("job", job) : url.searchParams.delete("job");
    history.replaceState(history.state, "", url);
    return url.href;
  }

  // What a browser keeps of a form: nothing before it is known whose it is.
  function keep(kept, names, values) {
    const owner = document.querySelector("[data-owner]")?.dataset.owner;
    if (!owner) return kept;
    return { owner, values: Object.fromEntries(names.map((name, index) => [name, values[index]])) };
  }

  async function copy(button, text) {
    const words = button.textContent;
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
    } catch {
      prompt("Copy this:", text); // a browser gives its clipboard to secure addresses only
    }
    setTimeout(() => (button.textContent = words), 1500);
  }

  // Which of several images is on the stage of the tab that is shown.
  function chosen() {
    const buttons = [...document.querySelectorAll("[data-act=choose]")].filter((one) => one.checkVisibility());
    return Math.max(0, buttons.findIndex((one) => one.getAttribute("aria-pressed") === "true"));
  }

  // A report with a tab to itself, in which its scripts still reach nothing of the page.
  function openReport() {
    const report = document.querySelector(".t2i-report");
    const tab = open("", "_blank");
    if (!tab) return;
    const frame = tab.document.createElement("iframe");
    frame.setAttribute("sandbox", "allow-scripts");
    frame.srcdoc = report.srcdoc;
    frame.style = "position:fixed;inset:0;width:100%;height:100%;border:0";
    tab.document.title = "Report";
    tab.document.body.append(frame);
  }

  document.addEventListener("click", (event) => {
    if (event.target.dataset?.act === "report") return openReport();
    const control = event.target.closest?.("[data-act][data-job], .t2i-advice");
    if (!control || event.ctrlKey || event.metaKey || event.shiftKey) return; // a link may go into a tab of its own
    const { act, job, to, text, tab: kind } = control.dataset;
    event.preventDefault();
    if (act === "copy") return copy(control, text);
    if (act === "link") return copy(control, new URL(`?job=${job}`, location).href);
    if (act === "delete" && !confirm("Delete this job and what it has made?")) return;
    if (!acts.includes(act)) return;
    if (act === "open") address(job);
    if (["again", "vary", "compare", "latest"].includes(act)) address("");
    const index = chosen(); // of the tab that is left
    if (kind) go(kind);
    document.dispatchEvent(new CustomEvent("t2i-act", { detail: { act, job, to, text, index } }));
  });

  // A file that is dropped or pasted anywhere but on a box of its own, which stops the event there.
  const images = (transfer) => [...(transfer?.files ?? [])].filter((file) => file.type.startsWith("image/"));
  const tab = () => document.querySelector("[role=tab][aria-selected=true]")?.textContent.trim().toLowerCase();

  function bring(event, files) {
    if (event.defaultPrevented || !files.length) return;
    event.preventDefault();
    const to = tab();
    if (to !== "detect") go("generate");
    document.dispatchEvent(new CustomEvent("t2i-files", { detail: { files, to } }));
  }

  document.addEventListener("dragover", (event) => {
    if ([...event.dataTransfer.types].includes("Files")) event.preventDefault(); // or the browser opens the file
  });
  document.addEventListener("drop", (event) => bring(event, images(event.dataTransfer)));
  document.addEventListener("paste", (event) => bring(event, images(event.clipboardData)));

  document.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
    const run = [...document.querySelectorAll("button[id$=-run]")].find((one) => one.checkVisibility());
    if (!run) return;
    event.preventDefault();
    run.click();
  });

  // Gradio opens its page on the API by a click only, which closes it where the address asks for it.
  async function openApi() {
    const wait = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));
    for (let look = 0; look < 600 && !document.querySelector(".show-api"); look++) await wait(100);
    for (let look = 0; look < 20 && !document.querySelector(".api-docs"); look++) {
      document.querySelector(".show-api")?.click();
      await wait(1000);
    }
  }
  if (new URLSearchParams(location.search).get("view") === "api") openApi();

  return { address, arrive, keep };
})();
