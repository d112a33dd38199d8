"use strict";
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const tip = document.getElementById("tip");

  // What a mark says, beside it, for the mouse and for the keyboard alike.
  const show = (mark) => {
    tip.textContent = mark.getAttribute("aria-label");
    tip.hidden = false;
    const box = mark.getBoundingClientRect();
    const left = Math.min(box.left + box.width / 2 + 12, document.documentElement.clientWidth - tip.offsetWidth - 8);
    const above = box.top - tip.offsetHeight - 8;
    tip.style.left = `${Math.max(8, left) + scrollX}px`;
    tip.style.top = `${(above > 0 ? above : box.bottom + 8) + scrollY}px`;
  };
  const hide = () => { tip.hidden = true; };
  for (const mark of all(".mark[aria-label]")) {
    mark.addEventListener("pointerenter", () => show(mark));
    mark.addEventListener("focus", () => show(mark));
    mark.addEventListener("pointerleave", hide);
    mark.addEventListener("blur", hide);
  }
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });

  // On paper nothing can be opened: tables are, items stay as the reader left them.
  const matrices = all("details.matrix");
  addEventListener("beforeprint", () => { for (const each of matrices) each.open = true; });

  const form = document.getElementById("filters");
  if (!form) return;
  form.hidden = false;
  const items = all("#list > .item").map((node) => ({ node, flips: all(".flip", node), text: null }));
  const count = document.getElementById("count");
  const toggle = document.getElementById("open-all");
  const value = (name) => (form.elements[name] ? form.elements[name].value : "");
  const matches = (wanted, found) => !wanted || wanted === found;

  const filter = () => {
    const [artifact, direction, error] = ["artifact", "direction", "error"].map(value);
    const words = value("search").toLowerCase().split(/\s+/).filter(Boolean);
    let seenItems = 0, seenFlips = 0;
    for (const item of items) {
      if (words.length && item.text === null) item.text = item.node.textContent.toLowerCase();
      const about = matches(value("suite"), item.node.dataset.suite)
        && matches(value("category"), item.node.dataset.category) && words.every((word) => item.text.includes(word));
      let seen = 0;
      for (const flip of item.flips) {
        const of = flip.dataset;
        const fits = about && matches(artifact, of.artifact) && matches(direction, of.direction)
          && (!error || of.errors.split(" ").includes(error));
        flip.hidden = !fits;
        seen += fits;
      }
      item.node.hidden = !seen;
      seenItems += seen > 0;
      seenFlips += seen;
    }
    count.textContent = `${seenFlips} flip${seenFlips === 1 ? "" : "s"} of ${seenItems} item${seenItems === 1 ? "" : "s"}`;
  };
  form.addEventListener("input", filter);
  form.addEventListener("reset", () => setTimeout(filter));
  form.addEventListener("submit", (event) => event.preventDefault());
  toggle.addEventListener("click", () => {
    const open = toggle.getAttribute("aria-pressed") !== "true";
    toggle.setAttribute("aria-pressed", open);
    toggle.textContent = open ? "Close all" : "Open all";
    for (const item of items) item.node.open = open;
  });
  filter();
})();
