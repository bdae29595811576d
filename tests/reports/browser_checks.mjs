// Opens a report from its file in a real Chromium, network off, and prints what was found as JSON.
// node browser_checks.mjs MODULES CHROMIUM PAGE PDF
import fs from "node:fs";
import path from "node:path";
import { pathToFileURL } from "node:url";

const [, , modules, executablePath, file, pdf] = process.argv;
const { chromium } = await import(pathToFileURL(path.join(modules, "playwright-core", "index.mjs")));
const axe = fs.readFileSync(path.join(modules, "axe-core", "axe.min.js"), "utf8");
const args = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run", "--disable-quic"];
const browser = await chromium.launch({ executablePath, args });
const found = { said: [], violations: [], overflow: [], text: {}, sorted: null, filtered: null, enlarged: null, kept: null, pages: 0, cut: [] };

const open = async (options, hash = "") => {
  const context = await browser.newContext({ offline: true, ...options });
  const page = await context.newPage();
  page.on("console", (message) => found.said.push(message.text()));
  page.on("pageerror", (error) => found.said.push(String(error)));
  page.on("request", (request) => { if (!/^(file|data):/.test(request.url())) found.said.push(`asked for ${request.url()}`); });
  await page.goto(pathToFileURL(file) + hash);
  return { context, page };
};

for (const colorScheme of ["light", "dark"]) for (const width of [390, 820, 1440]) {
  const { context, page } = await open({ viewport: { width, height: 844 }, colorScheme, bypassCSP: true });
  if (await page.evaluate(() => document.documentElement.scrollWidth > innerWidth)) found.overflow.push(width);
  await page.evaluate(axe);
  const result = await page.evaluate(() => window.axe.run(document, { resultTypes: ["violations"] }));
  for (const one of result.violations) found.violations.push(`${colorScheme} ${width}: ${one.id} ${one.nodes[0].html.slice(0, 200)}`);
  if (width === 390) found.above = await page.evaluate(() => document.getElementById("decision-heading").getBoundingClientRect().bottom);
  await context.close();
}
for (const javaScriptEnabled of [true, false]) {
  const { context, page } = await open({ viewport: { width: 1440, height: 900 }, javaScriptEnabled });
  found.text[javaScriptEnabled] = await page.locator("main").textContent();
  await context.close();
}
{
  const { context, page } = await open({ viewport: { width: 1440, height: 900 } });
  const cells = () => page.$$eval("#ledger-table tbody tr:not([hidden])", (rows) => rows.map((row) => row.cells[1].textContent));
  const head = page.locator("#ledger-table thead th button").first();
  if (await head.count()) {
    await head.click();
    found.sorted = await cells();
    await page.fill("[data-filter=ledger-table]", "pact-int8");
    found.filtered = await cells();
    await page.locator(".gallery .enlarge").first().focus();
    await page.keyboard.press("Enter");
    found.enlarged = await page.$$eval("dialog[open] .tile", (images) => images.length);
    found.slider = await page.$$eval("dialog[open] input[type=range]", (inputs) => inputs.length);
    await page.keyboard.press("Escape");
    const hash = await page.evaluate(() => location.hash);
    const again = await open({ viewport: { width: 1440, height: 900 } }, hash);
    found.kept = await again.page.$$eval("#ledger-table tbody tr:not([hidden])", (rows) => rows.map((row) => row.cells[1].textContent));
    await again.context.close();
  }
  await context.close();
}
{
  const { context, page } = await open({});
  await page.setViewportSize({ width: 703, height: 1000 }); // A4 less its margins, in CSS pixels
  await page.emulateMedia({ media: "print" });
  found.cut = await page.evaluate(() => [...document.querySelectorAll("table, svg, img, pre, .tiles, .verdict, .facing")].filter((one) => {
    const box = one.getBoundingClientRect();
    return box.width > 0 && box.right > document.documentElement.clientWidth + 1;
  }).map((one) => `${one.tagName} ${one.id || one.className?.baseVal || one.className} ${Math.round(one.getBoundingClientRect().right)}`));
  const bytes = await page.pdf({ path: pdf, preferCSSPageSize: true, printBackground: true });
  found.pages = (bytes.toString("latin1").match(/\/Type\s*\/Page[^s]/g) ?? []).length;
  await context.close();
}
await browser.close();
console.log(JSON.stringify(found));
